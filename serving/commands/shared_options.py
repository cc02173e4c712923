"""Options that several commands share, written once as a function that turns them into one value."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

Command = Callable[..., None]


def with_options(argument: str, options: Callable[..., Any]) -> Callable[[Command], Command]:
    """A decorator: the command with the parameters of `options` added; it gets their value as `argument`."""
    added = inspect.signature(options).parameters

    def decorate(command: Command) -> Command:
        own = [parameter for parameter in inspect.signature(command).parameters.values() if parameter.name != argument]

        @functools.wraps(command)
        def with_value(**arguments: Any) -> None:
            value = options(**{name: arguments.pop(name) for name in added})
            command(**arguments, **{argument: value})

        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *added.values())]
        with_value.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # read by Typer
        with_value.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return with_value

    return decorate
