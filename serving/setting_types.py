"""Types of settings: ranges of numbers, and a description of any type in words for errors."""

from typing import Annotated, Final

from msgspec import Meta, inspect

HOUR_MS: Final = 60 * 60 * 1000
MAX_DAYS: Final = 36_500
"""A hundred years: longer than any useful duration, and short enough for a thread to wait."""
MAX_MS: Final = MAX_DAYS * 24 * HOUR_MS
MAX_EXPLORATION: Final = 0.5
MAX_PARTITIONS: Final = 2_000
"""Kafka creates at most 10,000 partitions at once, and four topics have this many."""

Port = Annotated[int, Meta(ge=1, le=65_535)]
Replicas = Annotated[int, Meta(ge=0, le=32_767)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Timeout = Annotated[int, Meta(ge=100, le=HOUR_MS)]
Milliseconds = Annotated[int, Meta(ge=0, le=MAX_MS)]
ListPosition = Annotated[int, Meta(ge=1, le=200)]
Share = Annotated[float, Meta(ge=0, le=1)]
PositiveShare = Annotated[float, Meta(gt=0, le=1)]
Probability = Annotated[float, Meta(gt=0, lt=1)]
ExplorationShare = Annotated[float, Meta(ge=0, le=MAX_EXPLORATION)]


def describe_type(kind: inspect.Type) -> str:
    """The allowed values of a type, in words."""
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        low = f"from {kind.ge} to" if kind.ge is not None else f"above {kind.gt}, at most"
        span = f"{low} {kind.le}" if kind.le is not None else f"above {kind.gt} and below {kind.lt}"
        return f"a {'whole ' if isinstance(kind, inspect.IntType) else ''}number {span}"
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(str(value) for value in kind.values)
    if isinstance(kind, inspect.UnionType):
        return ", or ".join(describe_type(option) for option in kind.types if not isinstance(option, inspect.NoneType))
    if isinstance(kind, inspect.DictType):
        return "a table"
    return "true or false" if isinstance(kind, inspect.BoolType) else "a text"
