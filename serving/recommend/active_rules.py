"""The rules that apply to one look-up: the registry's, for its user, and those that came with the request."""

from collections.abc import Callable, Sequence
from math import log, prod

from serving.catalogue.release_view import CatalogueView
from serving.rules.compiled import SCORING_ACTIONS, RuleIndex
from serving.rules.rule import Rule

Candidates = Sequence[tuple[str, float]]
"""Items with their scores, best first."""


class ActiveRules:
    """The rules that apply to one look-up. `active` are the numbers of those of the registry."""

    def __init__(
        self, view: CatalogueView, segment: str | None, subject: str, request_rules: Sequence[Rule] = ()
    ) -> None:
        self.view = view
        self.domain = view.domain
        self.compiled = view.rules
        self.active = self.compiled.active_for(segment, subject) if self.compiled is not None else frozenset()
        now = self.domain.clock()
        self.request = RuleIndex(
            [rule for rule in request_rules if rule.valid_at(now) and rule.meant_for(segment, subject)]
        )

    def from_registry(self, item_id: str) -> list[Rule]:
        """The registry's rules about an item."""
        if self.compiled is None:
            return []
        numbers = self.compiled.matching(item_id, self.domain.items.get(item_id))
        return [self.compiled.rules[number] for number in numbers if number in self.active]

    def from_request(self, item_id: str) -> list[Rule]:
        """The request's rules about an item."""
        if not self.request.matchers:
            return []
        numbers = self.request.matching(item_id, self.domain.items.get(item_id))
        return [self.request.matchers[number].rule for number in numbers]

    def matcher(self, rule: Rule) -> Callable[[str], bool]:
        """A function that says whether one of the rules is about an item."""
        items, compiled = self.domain.items, self.compiled
        if compiled is not None and rule in compiled.rules:
            number = compiled.rules.index(rule)
            return lambda item_id: compiled.matches(number, item_id, items.get(item_id))
        matcher = next(each for each in self.request.matchers if each.rule == rule)
        return lambda item_id: matcher.matches(item_id, items.get(item_id))

    def matching(self, item_ids: Sequence[str]) -> list[list[Rule]]:
        """Every rule about each of some items."""
        from_request = [self.from_request(item_id) for item_id in item_ids]
        if self.compiled is None:
            return from_request
        rules, active = self.compiled.rules, self.active
        numbers = self.compiled.matching_each(item_ids, self.domain.items)
        return [
            [rules[number] for number in row if number in active] + own
            for row, own in zip(numbers, from_request, strict=True)
        ]

    def excludes(self, item_id: str) -> bool:
        """Whether a rule excludes an item."""
        return any(rule.action == "exclude" for rule in [*self.from_registry(item_id), *self.from_request(item_id)])

    def factor(self, item_id: str) -> float:
        """The product of all factors on an item, for items that no release scored."""
        return prod(rule.factor for rule in self.from_registry(item_id) + self.from_request(item_id) if rule.factor)

    @property
    def changes_scores(self) -> bool:
        """Whether any rule boosts or buries."""
        own = any(matcher.rule.action in SCORING_ACTIONS for matcher in self.request.matchers)
        return own or (self.compiled is not None and self.compiled.changes_scores)

    def reweighted(self, candidates: Candidates) -> list[tuple[str, float]]:
        """The candidates after the request's own rules: without excluded ones, in their new order."""
        if not self.request.matchers:
            return list(candidates)
        logits = self.view.logits
        kept: list[tuple[str, float]] = []
        for item_id, score in candidates:
            own = self.from_request(item_id)
            if any(rule.action == "exclude" for rule in own):
                continue
            factor = prod(rule.factor for rule in own if rule.factor)
            weighted = score + log(factor) if logits else score * factor if score > 0 else score / factor
            kept.append((item_id, weighted))
        return sorted(kept, key=lambda pair: -pair[1])

    def pins(self) -> list[Rule]:
        """The pins that apply, by position, then in their order."""
        compiled = self.compiled
        registry = [compiled.rules[number] for number in sorted(self.active)] if compiled is not None else []
        rules = [*registry, *(matcher.rule for matcher in self.request.matchers)]
        return sorted((rule for rule in rules if rule.action == "pin"), key=lambda rule: rule.position or 1)

    def excluding(self) -> list[str]:
        """The ids of the exclusions that apply and are about any item."""
        own = [matcher.rule.id for matcher in self.request.matchers if matcher.rule.action == "exclude"]
        compiled = self.compiled
        if compiled is None:
            return own
        numbers = [number for number in sorted(self.active) if compiled.rules[number].action == "exclude"]
        effective = [number for number in numbers if not compiled.index or len(compiled.places(number))]
        return [compiled.rules[number].id for number in effective] + own


class ItemFilter:
    """Whether an item may appear in a list at all, whatever its rank."""

    def __init__(
        self, rules: ActiveRules, category: str | None, excluded: frozenset[str], only: frozenset[str] | None
    ) -> None:
        self._rules, self._domain = rules, rules.domain
        self._category, self._excluded, self._only = category, excluded, only
        self._has_rules = rules.compiled is not None or bool(rules.request.matchers)

    def __call__(self, item_id: str) -> bool:
        domain = self._domain
        if item_id in self._excluded or not domain.is_available(item_id):
            return False
        if self._category is not None and domain.category_of(item_id) != self._category:
            return False
        if self._only is not None and item_id not in self._only:
            return False
        return not (self._has_rules and self._rules.excludes(item_id))
