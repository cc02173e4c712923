"""The answer of a look-up, as the API writes it."""

from collections.abc import Mapping

import msgspec


class RelatedEvent(msgspec.Struct, frozen=True):
    """An event of the history that supports a recommendation; `at` is epoch ms."""

    item_id: str
    kind: str
    at: int


class RuleEffect(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a rule did to an item: it pinned it to a position, or multiplied its score with a factor."""

    rule: str
    action: str
    factor: float | None = None
    position: int | None = None


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an item is in an answer.

    `item_id`, `title`, `kind` and `at` (epoch ms) are those of the event that caused it. `by` says how it was found:
    `contribution` (it adds most to the score), `neighbour` (its item is most similar to this one), `category` (the
    newest of the same category), or `newest` (none of these: the newest that counts).
    """

    code: str
    text: str
    item_id: str | None = None
    title: str | None = None
    kind: str | None = None
    at: int | None = None
    by: str | None = None
    rule: str | None = None


class RecommendedItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item of an answer; `score` compares only within one answer and one reason.

    `because`, `why` and `rules` come with `explain`, and `expected_value` where the release learned what events are
    worth: stars, seconds or a price, in the unit of the most common value kind. `propensity`, where the answer
    explores: the probability that this item is in this position when this look-up is made.
    """

    item_id: str
    score: float
    reason: str
    title: str | None = None
    category: str | None = None
    because: list[RelatedEvent] | None = None
    why: Explanation | None = None
    rules: list[RuleEffect] | None = None
    propensity: float | None = None
    expected_value: float | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A list, why it is what it is, and what it was computed from.

    `reason` is that of the first item: personal, category, segment, popular, catalogue, pinned, or empty for an empty
    list. `positions` are the log positions that the user's features hold, by partition. `applied` are the rules that
    had an effect, `unmet` the limits by category that the candidates did not allow.
    """

    user_id: str | None
    domain: str
    reason: str
    release: str | None
    request_id: str
    items: list[RecommendedItem]
    positions: Mapping[str, int]
    applied: list[str] = []
    unmet: list[str] = []
