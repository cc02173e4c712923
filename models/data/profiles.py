"""Who asks, and when: users' profiles and moments, as numbers that an encoder reads. Needs no Keras.

A profile is the newest word on a user's attributes that was known before the moment in question; a moment is that of
the event to predict in training, that of the request in a look-up.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from models.arrays import AnyArray, Int32, Int64
from stream.events import Scalar, User

Attributes = Mapping[str, Scalar | list[Scalar]]

SEGMENT: Final = "segment"
MOST_FIELDS: Final = 16
MOST_VALUES: Final = 100
LEAST_USERS: Final = 5
"""A value of fewer users teaches nothing that holds for others, and would stand in the release for all to read."""
NAMED: Final = 20
"""Numbers of at most so many different values are names (a code, a count); of more they are binned by quantiles."""
BINS: Final = 10
HOUR_MS: Final = 3_600_000
HOURS: Final = 25
WEEKDAYS: Final = 8
"""Hours count from 1, so do weekdays, Monday first; 0 is a moment that is not known."""


class Asking(msgspec.Struct, frozen=True):
    """Who asks, and when: a profile (None: none is known) and a moment, epoch ms (0: not known)."""

    profile: Attributes | None = None
    at: int = 0


NOBODY: Final = Asking()


class Field(msgspec.Struct, frozen=True):
    """One attribute. `values` are the names that it has, or `edges`, ascending, part its numbers into bins."""

    name: str
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def rows(self) -> list[str]:
        """A name for each code from 0 on; 0 is what is absent or was not seen in training."""
        bins = [f"bin {edge}" for edge in ("below", *self.edges)] if self.edges else []
        return [f"{self.name}=", *(f"{self.name}={one}" for one in (self.values or bins))]

    def code(self, value: Scalar | list[Scalar]) -> int:
        """The code of a value: from 1, or 0."""
        if self.edges:
            number = _number(value)
            return 0 if number is None else 1 + bisect_right(self.edges, number)
        name = _name(value)
        return self.values.index(name) + 1 if name in self.values else 0


class Fields:
    """What is read of profiles, as training learned it: attributes in order, each with its codes."""

    def __init__(self, fields: Sequence[Field] = ()) -> None:
        self.fields = tuple(fields)
        sizes = [len(one.rows) for one in self.fields]
        self.offsets: Int32 = np.cumsum([0, *sizes[:-1]]).astype(np.int32)[: len(sizes)]
        self.rows = [row for one in self.fields for row in one.rows]

    def __len__(self) -> int:
        return len(self.fields)

    @classmethod
    def of(cls, described: Sequence[Mapping[str, Any]]) -> "Fields":
        """From what `describe` gave."""
        return cls([msgspec.convert(one, Field) for one in described])

    def describe(self) -> list[dict[str, Any]]:
        """As JSON can hold it."""
        return [msgspec.to_builtins(one) for one in self.fields]

    @classmethod
    def fit(cls, profiles: Iterable[Attributes]) -> "Fields":
        """From one profile a user: the attributes that most users have, at most 16.

        Names of at least five users, the hundred commonest; numbers by quantiles. Lists are left out, and so is an
        attribute that says what an earlier one says.
        """
        every, columns = list(profiles), dict[str, list[Scalar]]()
        for profile in every:
            for name, value in profile.items():
                if value is not None and value != "" and not isinstance(value, list):
                    columns.setdefault(name, []).append(value)
        order = sorted(columns, key=lambda name: (name == SEGMENT, -len(columns[name]), name))
        found: dict[Any, Field] = {}
        for name in order:
            field = _fitted(name, columns[name])
            if field is not None:
                found.setdefault(tuple(str(profile.get(name)) for profile in every), field)
        return cls(list(found.values())[:MOST_FIELDS])

    def codes(self, profiles: Sequence[Attributes | None]) -> Int32:
        """int32 [profiles, fields]; a row of zeros for None."""
        out = np.zeros((len(profiles), len(self.fields)), np.int32)
        for row, profile in enumerate(profiles):
            if profile:
                out[row] = [one.code(profile.get(one.name)) for one in self.fields]
        return out


class Known(msgspec.Struct, frozen=True):
    """What was known of a log's users at each of its events: `table` int32 [words + 1, fields], row 0 nothing; `rows`
    int32 [events] say which row of it."""

    fields: Fields
    table: Int32
    rows: Int32


class Profiles:
    """Every word on users' profiles, by user: (at, attributes) in the order of time."""

    def __init__(self, words: Mapping[str, Sequence[tuple[int, Attributes]]]) -> None:
        self.words = words

    @classmethod
    def of(cls, users: Iterable[User]) -> "Profiles":
        """From profiles in the order in which they came."""
        words: dict[str, list[tuple[int, Attributes]]] = {}
        for one in users:
            words.setdefault(one.user_id, []).append((one.at, attributes_of(one)))
        return cls({user: sorted(mine, key=lambda word: word[0]) for user, mine in words.items()})

    @classmethod
    def read(cls, frame: pd.DataFrame) -> "Profiles":
        """From `features.offline.OfflineStore.profile_history`."""
        return cls.of(msgspec.json.decode(record, type=User) for record in frame["record"])

    def __len__(self) -> int:
        return len(self.words)

    def at(self, user_id: str, at: int) -> Attributes | None:
        """The newest word strictly before `at` (epoch ms); None where there was none yet."""
        words = self.words.get(user_id, ())
        place = bisect_left(words, at, key=lambda word: word[0])
        return words[place - 1][1] if place else None

    def known(self, users: AnyArray, at: Int64) -> Known:
        """For events of `users` at `at` (each [events]): what was known strictly before each of them.

        What is read of profiles is learned from the newest word on each user before the last of these events.
        """
        until = int(at.max(initial=0))
        codes, names = pd.factorize(users)
        newest = [found for user in names if (found := self.at(str(user), until)) is not None]
        fields = Fields.fit(newest)
        words: list[Attributes] = []
        rows = np.zeros(len(at), np.int32)
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
        for number, user in enumerate(names):
            mine = self.words.get(str(user), ())
            if not mine:
                continue
            events = order[bounds[number] : bounds[number + 1]]
            before = np.searchsorted([one for one, _ in mine], at[events], side="left")
            rows[events] = np.where(before > 0, len(words) + before, 0)
            words.extend(attributes for _, attributes in mine)
        return Known(fields, np.concatenate([fields.codes([None]), fields.codes(words)]), rows)


def attributes_of(user: User) -> Attributes:
    """What a profile says, the segment being one attribute more."""
    return {**user.attributes, SEGMENT: user.segment} if user.segment else user.attributes


def moments_of(at: Int64) -> Int32:
    """int32 [..., 2]: hour (1 to 24) and weekday (1 to 7, Monday first) in UTC of epoch ms; zeros for 0."""
    hours = at // HOUR_MS
    found = np.stack([hours % 24 + 1, (hours // 24 + 3) % 7 + 1], axis=-1)  # 1970 began on a Thursday
    return np.where(at[..., None] == 0, 0, found).astype(np.int32)


def _fitted(name: str, values: Sequence[Scalar]) -> Field | None:
    numbers = [_number(one) for one in values]
    if None not in numbers and len(set(numbers)) > NAMED:
        edges = np.unique(np.quantile(np.array(numbers, np.float64), np.linspace(0, 1, BINS + 1)[1:-1]))
        return Field(name, (), tuple(float(edge) for edge in edges))
    counts = Counter(_name(one) for one in values)
    common = [one for one, users in counts.most_common(MOST_VALUES) if users >= LEAST_USERS]
    return Field(name, tuple(sorted(common))) if common else None


def _number(value: Scalar | list[Scalar]) -> float | None:
    """A finite number, also one that is written as text; True and False are names."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _name(value: Scalar | list[Scalar]) -> str:
    """Text by which values are told apart: 3 and 3.0 are the same; the empty text is none."""
    if value is None or isinstance(value, list):
        return ""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)
