"""Users' profiles and the time of a request, as codes that an encoder reads. Needs no Keras.

A profile is the newest update of a user's attributes that was known before an event; the time is that of the event to
predict in training, and that of the request in a look-up.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from features.catalogue import UserProfile
from models.arrays import AnyArray, Int32, Int64
from stream.events import Scalar

Profile = Mapping[str, Scalar | list[Scalar]]
"""A user's attributes by name."""

SEGMENT: Final = "segment"
MAX_ATTRIBUTES: Final = 16
MAX_VALUES: Final = 100
MIN_USERS: Final = 5
"""A value of fewer users does not generalize, and a release would disclose it to its readers."""
MAX_CATEGORICAL_NUMBERS: Final = 20
"""A numeric attribute with at most this many distinct values is categorical (a code, a count); else it is binned."""
BINS: Final = 10
HOUR_MS: Final = 3_600_000
HOURS: Final = 25
WEEKDAYS: Final = 8
"""Sizes of the codes of hours (1 to 24) and weekdays (1 to 7, Monday first); 0 is an unknown time."""


class RequestContext(msgspec.Struct, frozen=True):
    """The user's profile (None: unknown) and the time of the request, epoch ms (0: unknown)."""

    profile: Profile | None = None
    at: int = 0


ANONYMOUS: Final = RequestContext()


class Attribute(msgspec.Struct, frozen=True):
    """The codes of one attribute: of the names in `values`, or of bins between `edges` (ascending)."""

    name: str
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()

    @property
    def labels(self) -> list[str]:
        """A label for each code from 0 on; 0 stands for a value that is absent or was not seen in training."""
        bins = [f"bin {edge}" for edge in ("below", *self.edges)] if self.edges else []
        return [f"{self.name}=", *(f"{self.name}={value}" for value in (self.values or bins))]

    def code(self, value: Scalar | list[Scalar]) -> int:
        """The code of a value, from 1; 0 where it has none.

        >>> Attribute("age", edges=(18.0, 65.0)).code(30)
        2
        """
        if self.edges:
            number = _number(value)
            return 0 if number is None else 1 + bisect_right(self.edges, number)
        name = _name(value)
        return self.values.index(name) + 1 if name in self.values else 0


class ProfileSchema:
    """The attributes that a model reads of profiles, in order, each with its codes."""

    def __init__(self, attributes: Sequence[Attribute] = ()) -> None:
        self.attributes = tuple(attributes)
        sizes = [len(attribute.labels) for attribute in self.attributes]
        self.offsets: Int32 = np.cumsum([0, *sizes[:-1]]).astype(np.int32)[: len(sizes)]
        self.labels = [label for attribute in self.attributes for label in attribute.labels]

    def __len__(self) -> int:
        return len(self.attributes)

    @classmethod
    def from_json(cls, described: Sequence[Mapping[str, Any]]) -> "ProfileSchema":
        """From what `to_json` returned."""
        return cls([msgspec.convert(attribute, Attribute) for attribute in described])

    def to_json(self) -> list[dict[str, Any]]:
        """The attributes as JSON values."""
        return [msgspec.to_builtins(attribute) for attribute in self.attributes]

    @classmethod
    def fit(cls, profiles: Iterable[Profile]) -> "ProfileSchema":
        """From one profile a user: the 16 attributes that most users have.

        Categorical values of at least five users, the hundred most frequent; numbers in bins by quantiles. Lists are
        left out, and so is an attribute that duplicates an earlier one.
        """
        every, columns = list(profiles), dict[str, list[Scalar]]()
        for profile in every:
            for name, value in profile.items():
                if value is not None and value != "" and not isinstance(value, list):
                    columns.setdefault(name, []).append(value)
        order = sorted(columns, key=lambda name: (name == SEGMENT, -len(columns[name]), name))
        distinct: dict[Any, Attribute] = {}
        for name in order:
            attribute = _fit_attribute(name, columns[name])
            if attribute is not None:
                distinct.setdefault(tuple(str(profile.get(name)) for profile in every), attribute)
        return cls(list(distinct.values())[:MAX_ATTRIBUTES])

    def encode(self, profiles: Sequence[Profile | None]) -> Int32:
        """int32 [profiles, attributes]: codes; a row of zeros for None."""
        codes = np.zeros((len(profiles), len(self.attributes)), np.int32)
        for row, profile in enumerate(profiles):
            if profile:
                codes[row] = [attribute.code(profile.get(attribute.name)) for attribute in self.attributes]
        return codes


class EventProfiles(msgspec.Struct, frozen=True):
    """What was known of users before each of their events.

    `table` int32 [updates + 1, attributes]: codes, row 0 for no profile. `rows` int32 [events]: each event's row.
    """

    schema: ProfileSchema
    table: Int32
    rows: Int32


class ProfileHistory:
    """Every update of users' profiles, by user: (at, profile) in time order."""

    def __init__(self, updates: Mapping[str, Sequence[tuple[int, Profile]]]) -> None:
        self.updates = updates

    @classmethod
    def from_users(cls, users: Iterable[UserProfile]) -> "ProfileHistory":
        """From profiles, each as it was from its `at` on, in any order."""
        return cls._from_versions((user.at, user) for user in users)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> "ProfileHistory":
        """From `features.offline.OfflineStore.profile_history`."""
        profiles = (msgspec.json.decode(record, type=UserProfile) for record in frame["record"])
        return cls._from_versions(zip(epoch_ms(frame["event_timestamp"]).tolist(), profiles, strict=True))

    @classmethod
    def _from_versions(cls, versions: Iterable[tuple[int, UserProfile]]) -> "ProfileHistory":
        updates: dict[str, list[tuple[int, Profile]]] = {}
        for at, user in versions:
            updates.setdefault(user.user_id, []).append((at, profile_of(user)))
        return cls({user_id: sorted(own, key=lambda update: update[0]) for user_id, own in updates.items()})

    def __len__(self) -> int:
        return len(self.updates)

    def before(self, user_id: str, at: int) -> Profile | None:
        """The newest profile strictly before `at` (epoch ms); None where there was none yet."""
        updates = self.updates.get(user_id, ())
        position = bisect_left(updates, at, key=lambda update: update[0])
        return updates[position - 1][1] if position else None

    def before_events(self, users: AnyArray, at: Int64) -> EventProfiles:
        """What was known strictly before each event, for ids `users` and times `at` (epoch ms), each [events].

        The schema is fitted on each user's newest profile before the last of these events.
        """
        until = int(at.max(initial=0))
        codes, names = pd.factorize(users)
        newest = [profile for user in names if (profile := self.before(str(user), until)) is not None]
        schema = ProfileSchema.fit(newest)
        profiles: list[Profile] = []
        rows = np.zeros(len(at), np.int32)
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
        for number, user in enumerate(names):
            updates = self.updates.get(str(user), ())
            if not updates:
                continue
            events = order[bounds[number] : bounds[number + 1]]
            earlier = np.searchsorted([updated_at for updated_at, _ in updates], at[events], side="left")
            rows[events] = np.where(earlier > 0, len(profiles) + earlier, 0)
            profiles.extend(profile for _, profile in updates)
        return EventProfiles(schema, np.concatenate([schema.encode([None]), schema.encode(profiles)]), rows)


def epoch_ms(times: "pd.Series[pd.Timestamp]") -> Int64:
    """int64 [times]: epoch ms of timestamps in whatever unit."""
    milliseconds: Int64 = times.dt.tz_convert(None).to_numpy().astype("datetime64[ms]").astype(np.int64)
    return milliseconds


def profile_of(user: UserProfile) -> Profile:
    """A user's attributes, with the segment as one more attribute."""
    return {**user.attributes, SEGMENT: user.segment} if user.segment else user.attributes


def time_features(at: Int64) -> Int32:
    """int32 [..., 2]: hour (1 to 24) and weekday (1 to 7, Monday first) in UTC of epoch ms; zeros for 0.

    >>> time_features(np.array([1_759_708_800_000, 0])).tolist()
    [[1, 1], [0, 0]]
    """
    hours = at // HOUR_MS
    codes = np.stack([hours % 24 + 1, (hours // 24 + 3) % 7 + 1], axis=-1)  # 1970 began on a Thursday
    return np.where(at[..., None] == 0, 0, codes).astype(np.int32)


def _fit_attribute(name: str, values: Sequence[Scalar]) -> Attribute | None:
    """The codes of an attribute from its values; None where no value has enough users."""
    numbers = [_number(value) for value in values]
    if None not in numbers and len(set(numbers)) > MAX_CATEGORICAL_NUMBERS:
        edges = np.unique(np.quantile(np.array(numbers, np.float64), np.linspace(0, 1, BINS + 1)[1:-1]))
        return Attribute(name, (), tuple(float(edge) for edge in edges))
    counts = Counter(_name(value) for value in values)
    frequent = [value for value, users in counts.most_common(MAX_VALUES) if users >= MIN_USERS]
    return Attribute(name, tuple(sorted(frequent))) if frequent else None


def _number(value: Scalar | list[Scalar]) -> float | None:
    """A finite number, also one that is written as text; booleans are categorical."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _name(value: Scalar | list[Scalar]) -> str:
    """A categorical value as text: 3 and 3.0 are the same; empty for None and lists."""
    if value is None or isinstance(value, list):
        return ""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)
