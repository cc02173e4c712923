"""Synthetic events that are added to a shop's training set: whole users, later events, tail items, and controls."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np

from features.activity import History
from models.arrays import Int32, Int64
from models.data.interactions import Interactions
from models.evaluation.cold_values import tail_of
from models.synthesizers.base import MAX_EVENTS, Synthesizer
from models.synthesizers.conditions import ANYTHING, Conditions, SynthesisError
from models.synthesizers.histories import Histories

USERS: Final = "users"
LENGTHENED: Final = "lengthened"
TAIL: Final = "tail"


class AddedEvents(msgspec.Struct, frozen=True):
    """Events to train on besides the real ones: `users` int64 (codes; new users have codes from the real users' number
    on), `items` int32, `kinds` int32, `at` int64 (epoch ms); a user's events in time order."""

    users: Int64
    items: Int32
    kinds: Int32
    at: Int64

    def __len__(self) -> int:
        return len(self.items)

    def first(self, events: int) -> "AddedEvents":
        """The first so many events."""
        return AddedEvents(self.users[:events], self.items[:events], self.kinds[:events], self.at[:events])


def combined(real: Interactions, added: AddedEvents) -> Interactions:
    """Real and added events as one training set, over the same vocabulary; a user's added events follow the real ones.

    Values and profiles of events are left out: added events have none.
    """
    users = np.concatenate([real.users, added.users])
    order = np.argsort(users, kind="stable")
    return msgspec.structs.replace(
        real,
        users=np.unique(users[order], return_inverse=True)[1].astype(np.int64),
        items=np.concatenate([real.items, added.items])[order],
        kinds=np.concatenate([real.kinds, added.kinds])[order],
        at=np.concatenate([real.at, added.at])[order],
        values=None,
        profiles=None,
        warm_items=None,
    )


def whole_users(synthesizer: Synthesizer, real: Interactions, events: int, rng: np.random.Generator) -> AddedEvents:
    """Users that the synthesizer invents, `events` events in all."""
    return _new_users(real, events, lambda users: synthesizer.sample([ANYTHING], users, rng))


def lengthened(synthesizer: Synthesizer, real: Interactions, events: int, rng: np.random.Generator) -> AddedEvents:
    """Later events of the users with the shorter half of the histories, at most MAX_EVENTS each and `events` in all."""
    histories = Histories.from_interactions(real)
    short = np.flatnonzero(histories.lengths <= np.median(histories.lengths))
    short = rng.permutation(short)[: max(1, events)]
    per_user = int(np.clip(np.ceil(events / len(short)), 1, MAX_EVENTS))
    conditions = [
        Conditions(first=_newest(histories.history(user, real.vocabulary)), events=per_user) for user in short.tolist()
    ]
    generated = synthesizer.sample(conditions, 1, rng)
    return AddedEvents(short[generated.users], generated.items, generated.kinds, generated.at).first(events)


def tail_items(synthesizer: Synthesizer, real: Interactions, events: int, rng: np.random.Generator) -> AddedEvents:
    """Users whose first event is on an item of the tail, items without events included; the synthesizer continues."""
    size = len(real.vocabulary)
    tail = np.flatnonzero(tail_of(np.bincount(real.items, minlength=size)))
    further = max(1, round(len(real) / max(1, real.user_count)) - 1)

    def users_of(users: int) -> Histories:
        items, places = rng.choice(tail, users), rng.integers(len(real), size=users)
        kinds, times = real.kinds[places], real.at[places]
        firsts = [
            History([real.vocabulary.item_ids[item]], [kind], [at], [None])
            for item, kind, at in zip(items.tolist(), kinds.tolist(), times.tolist(), strict=True)
        ]
        generated = synthesizer.sample([Conditions(first=first, events=further) for first in firsts], 1, rng)
        return _preceded(generated, items.astype(np.int32), kinds, times)

    return _new_users(real, events, users_of)


KINDS: Final[dict[str, Callable[[Synthesizer, Interactions, int, np.random.Generator], AddedEvents]]] = {
    USERS: whole_users,
    LENGTHENED: lengthened,
    TAIL: tail_items,
}
"""What is added, by name."""


def duplicated(real: Interactions, events: int, rng: np.random.Generator) -> AddedEvents:
    """Control: real users again, drawn with replacement, `events` events in all."""
    histories = Histories.from_interactions(real)
    return _new_users(real, events, lambda users: histories.take(rng.integers(len(histories), size=users)))


def shuffled(added: AddedEvents, rng: np.random.Generator) -> AddedEvents:
    """Control: the same users, times and items, but who has which item is drawn again."""
    return msgspec.structs.replace(added, items=rng.permutation(added.items))


def check_kinds(kinds: Sequence[str], synthesizers: Sequence[type[Synthesizer]]) -> None:
    """Raise SynthesisError for an unknown kind, or a synthesizer that cannot generate one of them."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SynthesisError(f"nothing of kind {unknown[0]!r} can be added; there are {', '.join(KINDS)}")
    continued = [kind for kind in kinds if kind != USERS]
    for synthesizer in synthesizers if continued else ():
        if "first" not in synthesizer.supports:
            raise SynthesisError(
                f"{synthesizer.name} cannot continue a history, which {continued[0]!r} needs; leave one of them out"
            )


def _new_users(real: Interactions, events: int, users_of: Callable[[int], Histories]) -> AddedEvents:
    """New users from `users_of(number of users)`, until there are `events` events."""
    mean = max(1.0, len(real) / max(1, real.user_count))
    parts: list[AddedEvents] = []
    code, missing = real.user_count, events
    while missing > 0:
        histories = users_of(int(np.ceil(missing / mean)))
        if not len(histories.items):
            raise SynthesisError("the synthesizer generated users without events; choose another one")
        part = AddedEvents(code + histories.users, histories.items, histories.kinds, histories.at).first(missing)
        parts.append(part)
        code, missing = code + len(histories), missing - len(part)
    columns = [[getattr(part, name) for part in parts] for name in AddedEvents.__struct_fields__]
    empty = AddedEvents(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64))
    return AddedEvents(*(np.concatenate(column) for column in columns)) if parts else empty


def _preceded(generated: Histories, items: Int32, kinds: Int32, at: Int64) -> Histories:
    """Each user's history with an event of `items`, `kinds`, `at` [users] before it."""
    places = generated.starts[:-1]
    return Histories(
        starts=generated.starts + np.arange(len(generated.starts)),
        items=np.insert(generated.items, places, items),
        kinds=np.insert(generated.kinds, places, kinds),
        at=np.insert(generated.at, places, at),
        values=np.insert(generated.values, places, np.nan),
        sessions=np.insert(generated.sessions, places, 0),
    )


def _newest(history: History) -> History:
    part = slice(-MAX_EVENTS, None)
    return History(history.items[part], history.kinds[part], history.times[part], history.values[part])
