"""What a setting may be: the ranges of numbers as types, and any type in words."""

from typing import Annotated, Final

from msgspec import Meta, inspect

HOUR_MS: Final = 60 * 60 * 1000
LONGEST_D: Final = 36_500
"""A hundred years: longer than any duration that means something, shorter than what a thread can wait."""
LONGEST_MS: Final = LONGEST_D * 24 * HOUR_MS
MOST_EXPLORE: Final = 0.5
MOST_PARTITIONS: Final = 2_000
"""Kafka makes at most 10,000 partitions at once, and four topics have these."""

Port = Annotated[int, Meta(ge=1, le=65_535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Milliseconds = Annotated[int, Meta(ge=0, le=LONGEST_MS)]
Listed = Annotated[int, Meta(ge=1, le=200)]
Share = Annotated[float, Meta(ge=0, le=1)]
SomeShare = Annotated[float, Meta(gt=0, le=1)]
Chance = Annotated[float, Meta(gt=0, lt=1)]
Explored = Annotated[float, Meta(ge=0, le=MOST_EXPLORE)]


def worded(kind: inspect.Type) -> str:
    """What a value of a type may be."""
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        low = f"from {kind.ge} to" if kind.ge is not None else f"above {kind.gt}, at most"
        span = f"{low} {kind.le}" if kind.le is not None else f"above {kind.gt} and below {kind.lt}"
        return f"a {'whole ' if isinstance(kind, inspect.IntType) else ''}number {span}"
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(str(one) for one in kind.values)
    if isinstance(kind, inspect.UnionType):
        return ", or ".join(worded(one) for one in kind.types if not isinstance(one, inspect.NoneType))
    if isinstance(kind, inspect.DictType):
        return "a table"
    return "true or false" if isinstance(kind, inspect.BoolType) else "a text"
