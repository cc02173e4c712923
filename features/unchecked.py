"""Feast in a third of the time: without the checks of arguments that typeguard compiles into it at each import."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def unchecked() -> Iterator[None]:
    """What is imported within is not given typeguard's checks: five of seven seconds on a busy core.

    `features.store` hands Feast what its own types say. Where typeguard is not installed nothing needs to be done.
    """
    try:
        import typeguard
    except ImportError:
        yield
        return
    checking = typeguard.typechecked
    typeguard.typechecked = _as_it_is
    try:
        yield
    finally:
        typeguard.typechecked = checking


def _as_it_is(target: Any = None, **_: Any) -> Any:
    """In place of the decorator, with and without options."""
    return _as_it_is if target is None else target
