"""Constraints: each alone, rules from TOML, and the law that no sample ever breaks a hard one."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.activity import History
from features.catalogue import CatalogueEntry
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.synthesizers.base import SamplingOptions
from models.synthesizers.conditions import ANYTHING, Conditions
from models.synthesizers.constraint_cost import constraint_cost
from models.synthesizers.constraint_rules import (
    WEEKDAYS,
    AnyRule,
    ConstraintError,
    build_constraints,
    read_constraints,
    read_rules,
)
from models.synthesizers.constraints import CategoryTransitions, Seasonality
from models.synthesizers.decoding import DrawingState
from models.synthesizers.fidelity import Reference
from models.synthesizers.histories import Histories
from models.synthesizers.item_facts import ItemFacts
from models.synthesizers.markov import Markov
from stream.durations import seconds
from stream.events import KIND_CODES

START = 1_759_708_800_000
"""A Monday's midnight, UTC, in October."""
HOUR = 3_600_000
ITEMS = {f"{category}{number}": category for category in ("tea", "cake", "fish") for number in range(4)}
PRICES = {item: 2.0 + number for number, item in enumerate(ITEMS)}


def shop() -> Interactions:
    """Events of 40 users every five hours; item tea3 is first seen after a week."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(40):
        for step in range(10):
            choices = [item for item in ITEMS if item != "tea3" or step >= 7]
            item = choices[int(rng.integers(len(choices)))]
            rows.append((f"u{user}", item, "purchase", PRICES[item], START + 24 * HOUR * step + 5 * HOUR * (user % 5)))
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "value", "at"]).sort_values("at", kind="stable")
    return Interactions.from_frame(frame, item_features=ItemFeatures.from_items(catalogue()))


def catalogue() -> list[CatalogueEntry]:
    return [
        CatalogueEntry(item_id=item, at=0, category=category, title=f"fine {item}", available=item != "fish3")
        for item, category in ITEMS.items()
    ]


SHOP = shop()
FACTS = ItemFacts.from_interactions(SHOP, catalogue())
MARKOV = Markov(Markov.Params(back_off=20.0))
MARKOV.fit(SHOP)


def known(day: int, *items: str) -> History:
    at = [START + 24 * HOUR * day + HOUR * number for number in range(len(items))]
    return History(list(items), [KIND_CODES["purchase"]] * len(items), at, [None] * len(items))


CONDITIONS = [
    ANYTHING,
    Conditions(first=known(1, "tea0", "cake1"), events=6),
    Conditions(later=known(9, "fish1", "tea2"), events=6),
    Conditions(first=known(1, "tea0"), later=known(9, "cake2", "cake1"), events=5),
]


def rule_of(**fields: Any) -> AnyRule:
    rule: AnyRule = msgspec.convert(fields, AnyRule)
    return rule


def sampled(rules: list[AnyRule], conditions: list[Conditions] = CONDITIONS, n: int = 15) -> Histories:
    options = SamplingOptions(constraints=build_constraints(rules, FACTS, SHOP))
    return MARKOV.sample(conditions, n, np.random.default_rng(1), options)


def events_of(histories: Histories, row: int, condition: Conditions) -> list[tuple[str, int, bool]]:
    """Item, time and whether it was generated, of a whole history with its known events."""
    own = histories.history(row, MARKOV.vocabulary)
    return [
        *((item, at, False) for item, at in zip(condition.first.items, condition.first.times, strict=True)),
        *((item, at, True) for item, at in zip(own.items, own.times, strict=True)),
        *((item, at, False) for item, at in zip(condition.later.items, condition.later.times, strict=True)),
    ]


def selects(rule: AnyRule, item: str) -> bool:
    if not (rule.items or rule.categories or rule.words):
        return True
    return item in rule.items or ITEMS[item] in rule.categories or bool(set(rule.words) & {"fine", item})


def breaks(rule: AnyRule, events: list[tuple[str, int, bool]]) -> bool:
    """Whether a history breaks a hard rule: written again, event by event."""
    for place, (item, _, generated) in enumerate(events):
        before = events[place - 1] if place else None
        if rule.__struct_config__.tag == "transitions":
            pair = (ITEMS[before[0]], ITEMS[item]) if before and (generated or before[2]) else None
            if pair and (pair in rule.forbid or (rule.allow and pair not in rule.allow)):  # type: ignore[union-attr]
                return True
        if generated and selects(rule, item) and breaks_alone(rule, place, events):
            return True
    return False


def breaks_alone(rule: AnyRule, place: int, events: list[tuple[str, int, bool]]) -> bool:
    item, at, _ = events[place]
    time = pd.Timestamp(at, unit="ms")
    same = [other for number, other in enumerate(events) if other[0] == item and number != place]
    fields: dict[str, Any] = msgspec.structs.asdict(rule)
    match rule.__struct_config__.tag:
        case "price":
            return not fields["low"] <= PRICES[item] <= (fields["high"] or np.inf)
        case "when":
            limits = (fields["hours"], fields["weekdays"], fields["months"])
            parts = (time.hour, WEEKDAYS[time.weekday()], time.month)
            return any(limit and part not in limit for limit, part in zip(limits, parts, strict=True))
        case "release":
            return item == "tea3" and at < FACTS.released[MARKOV.vocabulary.index["tea3"]]
        case "stock":
            return item == "fish3" or bool(fields["items"])
        case "weight":
            return True
        case "repeat":
            too_many = bool(fields["at_most"]) and len(same) + 1 > fields["at_most"]
            within = 1_000 * seconds(fields["within"]) if fields["within"] else 0
            return too_many or any(abs(other[1] - at) < within for other in same)
    return False


def check(rules: list[AnyRule]) -> None:
    histories = sampled(rules)
    for row in range(len(histories)):
        events = events_of(histories, row, CONDITIONS[row // 15])
        for rule in rules:
            assert not breaks(rule, events), (rule, events)


CATEGORIES = st.sampled_from(["tea", "cake", "fish"])
PAIRS = st.lists(st.tuples(CATEGORIES, CATEGORIES), min_size=1, max_size=5)
SELECTION = st.one_of(st.just({}), CATEGORIES.map(lambda name: {"categories": [name]}))
RULES = st.one_of(
    PAIRS.map(lambda pairs: rule_of(type="transitions", forbid=pairs)),
    PAIRS.map(lambda pairs: rule_of(type="transitions", allow=pairs)),
    st.tuples(SELECTION, st.integers(2, 8)).map(
        lambda both: rule_of(type="price", low=both[1], high=both[1] + 4, **both[0])
    ),
    st.tuples(SELECTION, st.sets(st.sampled_from(WEEKDAYS), min_size=1)).map(
        lambda both: rule_of(type="when", weekdays=sorted(both[1]), **both[0])
    ),
    st.tuples(SELECTION, st.sets(st.integers(0, 23), min_size=4)).map(
        lambda both: rule_of(type="when", hours=sorted(both[1]), **both[0])
    ),
    st.just(rule_of(type="release")),
    st.just(rule_of(type="stock")),
    st.sampled_from(list(ITEMS)).map(lambda item: rule_of(type="stock", items=[item])),
    st.sampled_from(list(ITEMS)).map(lambda item: rule_of(type="weight", words=[item], weight=0.0)),
    st.tuples(SELECTION, st.integers(1, 2)).map(lambda both: rule_of(type="repeat", at_most=both[1], **both[0])),
    st.sampled_from(["20h", "3d"]).map(lambda within: rule_of(type="repeat", within=within)),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RULES, min_size=1, max_size=3))
def test_no_sample_breaks_a_hard_rule(rules: list[AnyRule]) -> None:
    check(rules)


def test_a_forbidden_transition_holds_towards_known_events_on_both_sides() -> None:
    rules = [rule_of(type="transitions", allow=[("tea", "fish"), ("fish", "cake"), ("cake", "tea")])]
    check(rules)
    lengths = sampled(rules).lengths
    assert lengths[15:30].tolist() == [6] * 15  # a ring of categories never ends
    between = sampled(rules, [Conditions(first=known(1, "tea0"), later=known(9, "cake1"), events=4)], 20)
    assert between.lengths.tolist() == [4] * 20  # fish, cake, tea, fish: four steps lead from tea to cake


def test_transitions_that_lead_nowhere_leave_out_events_rather_than_break_the_rule() -> None:
    rules = [rule_of(type="transitions", forbid=[("tea", "cake"), ("cake", "cake"), ("fish", "cake")])]
    check(rules)
    condition = CONDITIONS[3]
    assert sampled(rules, [condition]).lengths.tolist() == [0] * 15  # nothing may come before cake


def test_a_soft_weight_shifts_and_does_not_forbid() -> None:
    tea = [FACTS.vocabulary.index[item] for item in ITEMS if item.startswith("tea")]
    shares = [
        np.isin(sampled([rule_of(type="weight", categories=["tea"], weight=weight)], [ANYTHING], 100).items, tea).mean()
        for weight in (0.2, 1.0, 5.0)
    ]
    assert 0 < shares[0] < 0.6 * shares[1]
    assert 1.4 * shares[1] < shares[2] < 1


def test_observed_transitions_are_all_that_come() -> None:
    frame = pd.DataFrame(
        [(f"u{user}", item, "view", user * 10 + place) for user in range(5) for place, item in enumerate("abc")],
        columns=["user_id", "item_id", "kind", "at"],
    )
    interactions = Interactions.from_frame(frame, categories={name: name for name in "abc"})
    facts = ItemFacts.from_interactions(interactions)
    table = CategoryTransitions.observed(facts, interactions).table
    assert table[1:, 1:].tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_seasonality_prefers_what_came_at_that_hour() -> None:
    rows = [
        (f"u{user}", item, "view", START + hour * HOUR) for user in range(50) for item, hour in (("m", 8), ("e", 20))
    ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).sort_values("at", kind="stable")
    interactions = Interactions.from_frame(frame, categories={"m": "morning", "e": "evening"})
    season = Seasonality(ItemFacts.from_interactions(interactions), interactions, ("hour",))
    drawing = DrawingState(np.zeros((2, 0), np.int32), START + HOUR * np.array([8, 20]), [ANYTHING] * 2, [None] * 2)
    order = [interactions.vocabulary.index[item] for item in "me"]
    # 50 of 50 events at that hour and 50 pseudo-events at the share of .5: .75, against .5 at all times
    np.testing.assert_allclose(season.factors(drawing)[:, order], [[1.5, 0.5], [0.5, 1.5]], atol=0.01)


def test_a_price_ratio_keeps_to_what_the_user_pays() -> None:
    drawn = sampled([rule_of(type="price", ratio=1.5)], [Conditions(first=known(1, "tea2"), events=1)], 60)
    prices = [PRICES[FACTS.vocabulary.item_ids[item]] for item in drawn.items.tolist()]
    assert all(4 / 1.5 <= price <= 6 for price in prices)


def test_the_cost_of_a_constraint_stands_above_the_noise() -> None:
    reference = Reference.fit(SHOP)
    rules = [rule_of(type="weight", categories=["tea"], weight=0.0)]
    costs = constraint_cost(MARKOV, [ANYTHING], 200, build_constraints(rules, FACTS, SHOP), reference)
    assert costs["items"].distance > 0.2 > costs["items"].noise
    free = constraint_cost(MARKOV, [ANYTHING], 200, (), reference)
    assert free["items"].distance < 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[rule]]\ntype = "repat"', r"rule 1: type: there is no 'repat' \(did you mean 'repeat'\?\); give one of"),
        ("[[rule]]\nname = 'x'", r"rule 1 \(x\): has no type; give one of transitions"),
        ('[[rule]]\ntype = "price"\nhihg = 3', r"unknown field 'hihg' \(did you mean 'high'\?\); price has type, name"),
        ('[[rule]]\ntype = "price"\nhigh = "a"', "rule 1: high: Expected `float"),
        ('[[rule]]\ntype = "when"\nhours = [25]', r"rule 1: hours\[0\]: Expected `int` <= 23"),
        ('[[rule]]\ntype = "price"', "give at least one of low, high and ratio"),
        ('[[rule]]\ntype = "price"\nlow = 5\nhigh = 2', "high: 2.0 is below low"),
        ('[[rule]]\ntype = "repeat"\nwithin = "soon"', "within: 'soon' is no duration"),
        ('[[rule]]\ntype = "transitions"', "exactly one of forbid, allow and observed"),
        ('[[rules]]\ntype = "stock"', "unknown table 'rules'"),
        ("[[rule", "not TOML"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_cure(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(ConstraintError, match=message) as error:
        read_rules(file)
    assert str(file) in str(error.value)


def test_a_rule_about_an_unknown_item_or_category_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConstraintError, match=r"rule 1: categories: no category is called 'teas' \(did you mean 'tea'"):
        build_constraints([rule_of(type="weight", categories=["teas"], weight=0.0)], FACTS, SHOP)
    file = tmp_path / "rules.toml"
    file.write_text('[[rule]]\ntype = "stock"\nitems = ["tea9"]')
    with pytest.raises(ConstraintError, match=r"rules.toml: rule 1: items: no item is called 'tea9'"):
        read_constraints(file, SHOP)


def test_rules_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[rule]]\ntype = "when"\ncategories = ["tea"]\nhours = [8, 9]\n[[rule]]\ntype = "release"\n')
    assert len(read_constraints(file, SHOP, catalogue())) == 2
    rules = read_rules(file)
    assert [rule.__struct_config__.tag for rule in rules] == ["when", "release"]
    check(rules)
