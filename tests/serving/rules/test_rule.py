"""Rules: what may be written, what is refused and how it says so, and which items and users they are about."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.catalogue.items import CatalogueItem
from serving.rules.compiled import CompiledRules, RuleIndex
from serving.rules.rule import Condition, Rule, RuleError, checked_rule, read_file, rule_of, share_of

NOW = 1_760_000_000_000
GOOD = """
[[rule]]
id = "summer"
action = "boost"
factor = 2.5
valid_from = 2026-06-01T00:00:00Z
valid_until = "2026-09-01T00:00:00+02:00"
[rule.where]
brand = ["House", "Other"]
price = { above = 5, below = 20 }

[[rule]]
id = "front"
action = "pin"
position = 1
items = ["a", "b"]
"""


def test_a_file_of_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(GOOD)
    summer, front = read_file(file)
    assert (summer.id, summer.factor, summer.where["brand"]) == ("summer", 2.5, ["House", "Other"])
    assert summer.where["price"] == Condition(above=5, below=20)
    starts, ends = 1_780_272_000_000, 1_788_213_600_000  # by `date -d ... +%s`
    assert [summer.valid_at(at) for at in (starts - 1, starts, ends - 1, ends)] == [False, True, True, False]
    assert (front.action, front.position, front.items) == ("pin", 1, ["a", "b"])


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("factor = 2.5", "factor = 0.5", 5, "boost needs a factor above 1"),
        ('action = "boost"', 'action = "lift"', 4, "Invalid enum value 'lift'"),
        ("factor = 2.5", "facter = 2.5", 5, "unknown field `facter`"),
        ("position = 1", "position = 0", 15, "position from 1"),
        ('id = "front"', 'id = "summer"', 13, "twice"),
        ("2026-06-01T00:00:00Z", "2026-06-01T00:00:00", 6, "is not a time"),
        ("2026-06-01T00:00:00Z", "9223372036854775807", 6, "is not a time"),
        ("2026-06-01T00:00:00Z", "2026-12-01T00:00:00Z", 7, "never valid"),
        ('items = ["a", "b"]', "", 12, "every item"),
        ("factor = 2.5", "factor = ", 5, "not TOML"),
        ('[[rule]]\nid = "front"', '[[rules]]\nid = "front"', 12, "rules is not known"),
        ("{ above = 5, below = 20 }", "{ }", 10, "tests nothing"),
    ],
)
def test_a_bad_rule_is_refused_with_its_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(RuleError) as refused:
        read_file(file)
    assert message in str(refused.value)
    assert f"line {line}" in str(refused.value)
    assert str(file) in str(refused.value)


def test_json_takes_its_id_from_the_address() -> None:
    rule = rule_of(b'{"action": "exclude", "where": {"category": "TEA"}}', "no-tea")
    assert (rule.id, rule.action) == ("no-tea", "exclude")
    assert rule_of(msgspec.json.encode(rule), "no-tea") == rule
    for bad in (b"", b"[]", b'{"action": "exclude"}', b'{"id": "x", "action": "exclude", "items": ["a"]}'):
        with pytest.raises(RuleError):
            rule_of(bad, "no-tea")


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("House", "House", True),
        ("House", ["Other", "House"], True),
        ("House", None, False),
        (["a", "b"], "b", True),
        (["a", "b"], "c", False),
        (Condition(above=5), 5, False),
        (Condition(above=5), 5.1, True),
        (Condition(above=5), "6", False),
        (Condition(above=0), True, False),
        (Condition(above=1, below=3), [0, 2], True),
        (Condition(absent=True), None, True),
        (Condition(absent=True), "x", False),
        (Condition(absent=False), "x", True),
        (1, True, False),
        (True, True, True),
    ],
)
def test_conditions(condition: object, value: object, holds: bool) -> None:
    rule = Rule(id="r", action="exclude", where={"brand": condition})  # type: ignore[dict-item]
    assert rule.tests()["brand"].holds(value) is holds  # type: ignore[arg-type]
    assert RuleIndex([rule]).matching("i", CatalogueItem(None, True, None, {"brand": value})) == ([0] if holds else [])  # type: ignore[dict-item]


def test_a_share_of_users_is_even_and_stays() -> None:
    half = Rule(id="half", action="exclude", items=["a"], share=0.5)
    for_whom = [half.meant_for(None, f"u{n}") for n in range(4_000)]
    assert 1_880 <= sum(for_whom) <= 2_120
    assert for_whom == [half.meant_for(None, f"u{n}") for n in range(4_000)]
    both = np.corrcoef(
        [share_of("one", f"u{n}") for n in range(4_000)], [share_of("two", f"u{n}") for n in range(4_000)]
    )
    assert abs(both[0, 1]) < 0.06
    assert Rule(id="s", action="exclude", items=["a"], segment="young").meant_for("young", "u1")
    assert not Rule(id="s", action="exclude", items=["a"], segment="young").meant_for(None, "u1")


words = st.sampled_from(["x", "y", "z"])
entries = st.builds(
    CatalogueItem,
    category=st.none() | words,
    available=st.just(True),
    title=st.none() | words,
    attributes=st.dictionaries(st.sampled_from(["brand", "price"]), words | st.integers(0, 3) | st.lists(words)),
)
where = st.dictionaries(
    st.sampled_from(["category", "title", "brand", "price"]),
    words | st.lists(words) | st.builds(Condition, above=st.integers(0, 2)) | st.just(Condition(absent=True)),
    min_size=1,
    max_size=2,
)
rules = st.lists(
    st.builds(
        Rule,
        id=words,
        action=st.just("boost"),
        factor=st.sampled_from([2.0, 4.0]),
        items=st.just([]) | st.lists(st.sampled_from(["i0", "i1", "gone"]), min_size=1),
        where=where,
    )
    | st.builds(Rule, id=words, action=st.just("exclude"), where=where)
    | st.builds(Rule, id=words, action=st.just("bury"), factor=st.just(0.5), where=where, segment=st.just("s")),
    max_size=10,
)


@settings(max_examples=120, deadline=None)
@given(rules, st.lists(entries, min_size=1, max_size=6), st.data())
def test_arrays_say_what_asking_item_by_item_says(
    rules_of_domain: list[Rule], known: list[CatalogueItem], data: st.DataObject
) -> None:
    """Also after single items changed: the arrays follow."""
    catalogue = {f"i{n}": entry for n, entry in enumerate(known)}
    index = {item: n for n, item in enumerate(catalogue)}
    compiled = CompiledRules(rules_of_domain, list(index), index, catalogue, NOW)
    for _ in range(data.draw(st.integers(0, 3))):
        item = data.draw(st.sampled_from(sorted(catalogue)))
        catalogue[item] = data.draw(entries)
        compiled.update_item(item, catalogue[item])
    for segment in (None, "s"):
        row = np.arange(1, len(catalogue) + 1, dtype=np.float32)
        expected = []
        for n, (item, entry) in enumerate(catalogue.items()):
            value: float = n + 1
            for rule in rules_of_domain:
                about = (not rule.items or item in rule.items) and all(
                    test.holds(entry.value_of(name)) for name, test in rule.tests().items()
                )
                if about and rule.segment in {None, segment}:
                    value = -np.inf if rule.action == "exclude" else value * (rule.factor or 1)
            expected.append(value)
        compiled.apply(row, compiled.active_for(segment, "u"), logits=False)
        assert row.tolist() == pytest.approx(expected)
    assert compiled.matching_each([*catalogue, "gone"], catalogue)[: len(catalogue)] == [
        compiled.matching(item, entry) for item, entry in catalogue.items()
    ]


def test_factors_add_their_logarithms_to_logits_and_never_lower_what_is_boosted() -> None:
    rule = checked_rule(Rule(id="b", action="boost", factor=4.0, items=["a"]))
    compiled = CompiledRules([rule], ["a", "b"], {"a": 0, "b": 1}, {}, NOW)
    logits, scores = np.array([-1.0, 2.0], np.float32), np.array([-1.0, 2.0], np.float32)
    compiled.apply(logits, compiled.active, logits=True)
    assert logits.tolist() == pytest.approx([-1 + 1.386294, 2.0])
    compiled.apply(scores, compiled.active, logits=False)
    assert scores.tolist() == [-0.25, 2.0]


def test_rules_begin_and_end_with_time() -> None:
    rule = Rule(id="b", action="exclude", items=["a"], valid_from=NOW + 10, valid_until=NOW + 20)
    compiled = CompiledRules([rule], ["a"], {"a": 0}, {}, NOW)
    barred = []
    for at in (NOW, NOW + 10, NOW + 19, NOW + 20):
        compiled.tick(at)
        barred.append(compiled.excluded is not None)
    assert barred == [False, True, True, False]
