"""Rules in TOML that constrain generated events: the schema, reading, and the constraints that they stand for."""

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
import numpy as np
from msgspec import Meta

from features.catalogue import CatalogueEntry
from models.arrays import Bool
from models.data.interactions import Interactions
from models.errors import ModelError
from models.synthesizers.constraints import (
    SEASONS,
    CategoryTransitions,
    OnlyWhen,
    OnSale,
    PriceBand,
    Repeats,
    Seasonality,
    Weighted,
)
from models.synthesizers.decoding import ItemConstraint
from models.synthesizers.item_facts import ItemFacts
from stream.durations import seconds

Factor = Annotated[float, Meta(ge=0, le=1_000)]
Hour = Annotated[int, Meta(ge=0, le=23)]
Month = Annotated[int, Meta(ge=1, le=12)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Season = Literal["hour", "weekday", "month"]
WEEKDAYS: Final = get_args(Weekday)


class ConstraintError(ModelError):
    """Rules that cannot be used."""


class GenerationRule(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """A rule. `name` appears in messages. `items`, `categories`, `words` (of the title) select items; none: all."""

    name: str = ""
    items: list[str] = []
    categories: list[str] = []
    words: list[str] = []


class TransitionRule(GenerationRule, frozen=True, kw_only=True, tag="transitions", forbid_unknown_fields=True):
    """Which category may follow which: pairs to `forbid`, or the only ones to `allow`, or those that were `observed` at
    least so often. Other transitions get the factor `weight`."""

    forbid: list[tuple[str, str]] = []
    allow: list[tuple[str, str]] = []
    observed: Annotated[int, Meta(ge=0)] = 0
    weight: Factor = 0.0


class PriceRule(GenerationRule, frozen=True, kw_only=True, tag="price", forbid_unknown_fields=True):
    """See `PriceBand`."""

    low: Annotated[float, Meta(ge=0)] = 0.0
    high: Annotated[float, Meta(gt=0)] | None = None
    ratio: Annotated[float, Meta(ge=1)] | None = None
    weight: Factor = 0.0


class WhenRule(GenerationRule, frozen=True, kw_only=True, tag="when", forbid_unknown_fields=True):
    """The selected items come at these hours, weekdays and months only; else they get the factor `weight`."""

    hours: list[Hour] = []
    weekdays: list[Weekday] = []
    months: list[Month] = []
    weight: Factor = 0.0


class SeasonRule(GenerationRule, frozen=True, kw_only=True, tag="season", forbid_unknown_fields=True):
    """Soft: categories come when they came in the past (`Seasonality`)."""

    by: list[Season] = msgspec.field(default_factory=lambda: ["hour", "weekday", "month"])


class ReleaseRule(GenerationRule, frozen=True, kw_only=True, tag="release", forbid_unknown_fields=True):
    """No item before its release or after it expires (`OnSale`)."""


class StockRule(GenerationRule, frozen=True, kw_only=True, tag="stock", forbid_unknown_fields=True):
    """No item that the catalogue calls unavailable, and none of the selected ones."""


class RepeatRule(GenerationRule, frozen=True, kw_only=True, tag="repeat", forbid_unknown_fields=True):
    """How often the selected items come in a user's events, and how soon again (such as `within = "30m"`)."""

    at_most: Annotated[int, Meta(ge=1)] | None = None
    within: str | None = None


class WeightRule(GenerationRule, frozen=True, kw_only=True, tag="weight", forbid_unknown_fields=True):
    """The selected items get the factor `weight`; 0 forbids them."""

    weight: Factor


AnyRule = (
    TransitionRule
    | PriceRule
    | WhenRule
    | SeasonRule
    | ReleaseRule
    | StockRule
    | RepeatRule
    | WeightRule
)  # fmt: skip
RULES: Final[dict[str, type[GenerationRule]]] = {
    str(rule.__struct_config__.tag): rule for rule in get_args(AnyRule)
}  # fmt: skip


def read_constraints(
    path: Path, interactions: Interactions, catalogue: Sequence[CatalogueEntry] = ()
) -> tuple[ItemConstraint, ...]:
    """The constraints of a TOML file, for the items of `interactions`.

    Raises:
        ConstraintError: the message names the file, the rule, the field and the cure.
    """
    rules, facts = read_rules(path), ItemFacts.from_interactions(interactions, catalogue)
    try:
        return build_constraints(rules, facts, interactions)
    except ConstraintError as error:
        raise ConstraintError(f"{path}: {error}") from error


def read_rules(path: Path) -> list[AnyRule]:
    """The rules of a TOML file, its tables `[[rule]]` in order.

    Raises:
        ConstraintError: the message names the file, the rule, the field and the cure.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConstraintError(f"{path}: {error.strerror}; give a file with tables [[rule]]") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConstraintError(f"{path}: not TOML: {error}") from error
    for field in raw:
        if field != "rule":
            raise ConstraintError(f"{path}: unknown table {field!r}; each rule is a table [[rule]]")
    tables = raw.get("rule", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConstraintError(f"{path}: `rule` is not a list of tables; begin each rule with [[rule]]")
    return [_rule(table, f"{path}: {_label(table, number)}") for number, table in enumerate(tables, 1)]


def _label(table: Mapping[str, Any], number: int) -> str:
    name = table.get("name")
    return f"rule {number} ({name})" if name else f"rule {number}"


def _rule(table: Mapping[str, Any], where: str) -> AnyRule:
    kind = table.get("type")
    if kind not in RULES:
        what = "has no type" if kind is None else f"type: there is no {kind!r}{_nearest(str(kind), list(RULES))}"
        raise ConstraintError(f"{where}: {what}; give one of {', '.join(RULES)}")
    for field in table:
        known = ["type", *RULES[kind].__struct_fields__]
        if field not in known:
            hint = _nearest(field, known)
            raise ConstraintError(f"{where}: unknown field {field!r}{hint}; {kind} has {', '.join(known)}")
    try:
        rule: AnyRule = msgspec.convert(table, AnyRule)
    except msgspec.ValidationError as error:
        what, _, field = str(error).partition(" - at `$.")
        raise ConstraintError(f"{where}: {field.strip('`') or 'fields'}: {what}") from error
    if fault := _fault(rule):
        raise ConstraintError(f"{where}: {fault}")
    return rule


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _fault(rule: AnyRule) -> str | None:
    """What is wrong with a rule as a whole, and the cure."""
    match rule:
        case TransitionRule():
            given = [bool(rule.forbid), bool(rule.allow), bool(rule.observed)]
            return None if sum(given) == 1 else "give exactly one of forbid, allow and observed"
        case PriceRule() if rule.high is not None and rule.high < rule.low:
            return f"high: {rule.high} is below low ({rule.low}); swap them"
        case PriceRule() if rule.low == 0 and rule.high is None and rule.ratio is None:
            return "give at least one of low, high and ratio"
        case WhenRule() if not (rule.hours or rule.weekdays or rule.months):
            return "give at least one of hours, weekdays and months"
        case RepeatRule() if rule.at_most is None and rule.within is None:
            return "give at_most, within, or both"
        case RepeatRule() if rule.within is not None:
            try:
                seconds(rule.within)
            except ValueError as error:
                return f"within: {error}"
        case WeightRule() if not (rule.items or rule.categories or rule.words):
            return "give items, categories or words to weight"
    return None


def build_constraints(
    rules: Sequence[AnyRule], facts: ItemFacts, interactions: Interactions
) -> tuple[ItemConstraint, ...]:
    """The constraints that rules stand for, on these items; `interactions` are what observed rules learn from.

    Raises:
        ConstraintError: a rule names an item or a category that does not exist.
    """
    return tuple(
        _constraint(rule, facts, interactions, f"rule {number} ({rule.name})" if rule.name else f"rule {number}")
        for number, rule in enumerate(rules, 1)
    )


def _constraint(rule: AnyRule, facts: ItemFacts, interactions: Interactions, where: str) -> ItemConstraint:
    selected = selected_items(rule, facts, where)
    match rule:
        case TransitionRule():
            return _transitions(rule, facts, interactions, where)
        case PriceRule():
            high = np.inf if rule.high is None else rule.high
            prices = np.where(selected, facts.prices, np.float32(np.nan))
            band = msgspec.structs.replace(facts, prices=prices)
            return PriceBand(band, low=rule.low, high=high, ratio=rule.ratio or 0.0, weight=rule.weight)
        case WhenRule():
            weekdays = frozenset(WEEKDAYS.index(day) + 1 for day in rule.weekdays)
            hours, months = frozenset(rule.hours), frozenset(rule.months)
            return OnlyWhen(selected, hours=hours, weekdays=weekdays, months=months, weight=rule.weight)
        case SeasonRule():
            return Seasonality(facts, interactions, tuple(name for name in SEASONS if name in rule.by))
        case ReleaseRule():
            released = np.where(selected, facts.released, 0)
            expires = np.where(selected, facts.expires, np.iinfo(np.int64).max)
            return OnSale(msgspec.structs.replace(facts, released=released, expires=expires))
        case StockRule():
            named = bool(rule.items or rule.categories or rule.words)
            return Weighted(~facts.available | (selected & named))
        case RepeatRule():
            within = round(1_000 * seconds(rule.within)) if rule.within else 0
            return Repeats(facts, selected, at_most=rule.at_most or 0, within_ms=within)
        case WeightRule():
            return Weighted(selected, rule.weight)


def selected_items(rule: GenerationRule, facts: ItemFacts, where: str) -> Bool:
    """bool [items]: the items that a rule is about: those of any of its items, categories and words; all if none."""
    if not (rule.items or rule.categories or rule.words):
        return np.ones(len(facts.categories), np.bool_)
    selected = np.zeros(len(facts.categories), np.bool_)
    for item in rule.items:
        if item not in facts.vocabulary.index:
            hint = _nearest(item, facts.vocabulary.item_ids)
            raise ConstraintError(f"{where}: items: no item is called {item!r}{hint}")
        selected[facts.vocabulary.index[item]] = True
    for category in rule.categories:
        selected |= facts.categories == _category(category, facts, f"{where}: categories")
    words = {word.lower() for word in rule.words}
    for index, title in enumerate(facts.titles):
        selected[index] |= bool(words & set(title.lower().split()))
    return selected


def _category(name: str, facts: ItemFacts, where: str) -> int:
    if name not in facts.category_names:
        raise ConstraintError(f"{where}: no category is called {name!r}{_nearest(name, facts.category_names)}")
    return facts.category_names.index(name) + 1


def _transitions(rule: TransitionRule, facts: ItemFacts, interactions: Interactions, where: str) -> ItemConstraint:
    if rule.observed:
        table = CategoryTransitions.observed(facts, interactions, rule.observed).table
        return CategoryTransitions(facts, np.where(table > 0, np.float32(1.0), np.float32(rule.weight)))
    groups = len(facts.category_names) + 1
    table = np.full((groups, groups), 1.0 if rule.forbid else rule.weight, np.float32)
    table[0], table[:, 0] = 1.0, 1.0
    field = "forbid" if rule.forbid else "allow"
    for before, after in rule.forbid or rule.allow:
        pair = (_category(before, facts, f"{where}: {field}"), _category(after, facts, f"{where}: {field}"))
        table[pair] = rule.weight if rule.forbid else 1.0
    return CategoryTransitions(facts, table)
