"""What a synthetic history has to fit: known events, a profile, a time and place, a wish for a category or a text."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, Literal, get_args

import msgspec
import numpy as np

from features.activity import History
from models.arrays import Int64
from models.data.profiles import Profile
from models.errors import ModelError

ConditionName = Literal["first", "later", "profile", "context", "elsewhere", "category", "text"]
CONDITION_NAMES: Final[tuple[ConditionName, ...]] = get_args(ConditionName)


class SynthesisError(ModelError):
    """Synthetic events cannot be generated as requested."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What one synthetic history has to fit; a part that is left out leaves it to the generator.

    `first`: the user's first events, oldest first, which the generated events follow. `later`: events that came after,
    which the generated events precede; with both, the generated events lie between. `profile`: the user's attributes.
    `context`: where and how the events happen, such as `{"device": "phone", "store": "3"}`, with the time of the first
    generated event in `at` (epoch ms, 0: free). `elsewhere`: events of the same user in another department or domain.
    `category`, `text`: what the items should preferably be. `events`: how many events to generate; None leaves it to
    the generator.
    """

    first: History = msgspec.field(default_factory=History)
    later: History = msgspec.field(default_factory=History)
    profile: Profile | None = None
    context: Mapping[str, str] = {}
    at: int = 0
    elsewhere: History = msgspec.field(default_factory=History)
    category: str | None = None
    text: str | None = None
    events: int | None = None

    @property
    def given(self) -> frozenset[ConditionName]:
        """The names of the conditions that are set."""
        given = {
            "first": bool(self.first.items),
            "later": bool(self.later.items),
            "profile": self.profile is not None,
            "context": bool(self.context) or self.at > 0,
            "elsewhere": bool(self.elsewhere.items),
            "category": self.category is not None,
            "text": self.text is not None,
        }
        return frozenset(name for name in CONDITION_NAMES if given[name])

    def only(self, names: frozenset[ConditionName]) -> "Conditions":
        """The same condition without the parts that are not in `names`; the number of events stays."""
        dropped = self.given - names
        cleared = {name: getattr(ANYTHING, name) for name in dropped}
        return msgspec.structs.replace(self, **cleared, **({"at": 0} if "context" in dropped else {}))


ANYTHING: Final = Conditions()
"""No condition: the generator invents a user."""


def check_conditions(conditions: Sequence[Conditions], supported: frozenset[ConditionName], synthesizer: str) -> None:
    """Refuse conditions that a synthesizer would have to ignore.

    Raises:
        SynthesisError: a condition has a part that is not in `supported`, or a number of events below 1.
    """
    for number, condition in enumerate(conditions):
        ignored = sorted(condition.given - supported)
        if ignored:
            known = ", ".join(sorted(supported)) or "nothing"
            raise SynthesisError(
                f"condition {number}: {synthesizer} cannot be conditioned on {', '.join(ignored)}, only on {known}; "
                "leave that out, or choose another synthesizer"
            )
        if condition.events is not None and condition.events < 1:
            raise SynthesisError(f"condition {number}: events={condition.events}; give 1 or more, or leave it out")


def condition_keys(conditions: Sequence[Conditions], n: int) -> Int64:
    """int64 [conditions * n]: a key for each history, `n` for each condition one after another.

    A key depends on the condition and the number of the history within it, not on the other conditions: so one
    condition alone gives the same histories as within a batch. Equal conditions of one batch get different keys.
    """
    times: dict[bytes, int] = {}
    keys = np.zeros(len(conditions) * n, np.int64)
    for number, condition in enumerate(conditions):
        content = msgspec.json.encode(condition, order="deterministic")
        before = times.get(content, 0)
        times[content] = before + n
        digest = int.from_bytes(blake2b(content, digest_size=8).digest(), "little") >> 1
        numbers = (digest + np.arange(before, before + n, dtype=np.uint64)) & np.uint64((1 << 63) - 1)
        keys[number * n : (number + 1) * n] = numbers.astype(np.int64)
    return keys
