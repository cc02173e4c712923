"""What a look-up can do beyond ranking, on releases that are written out by hand."""

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pytest

from features.catalogue import CatalogueEntry
from models.recommenders.first_events import FirstEvents
from models.releases.release import Release
from serving.catalogue.domain_state import DomainState
from serving.recommend.pipeline import FIRST_OF_CATALOGUE
from serving.recommend.request import LookupRequest
from serving.rules.rule import Condition, Rule
from testing.lookups import (
    NOW,
    SHOP,
    domain_state,
    follow,
    ids,
    look_up,
    read_release,
    release_view,
    serve,
    state_of,
    stocked,
    write_release,
)

ITEMS = [f"i{n}" for n in range(12)]
CATEGORIES = {item: "tea" if n < 6 else "cups" if n < 9 else "books" for n, item in enumerate(ITEMS)}
NEAR = {"i0": [(f"i{n}", 1.0 - n / 20) for n in range(1, 9)], "i9": [("i2", 0.5), ("i10", 0.4)]}
PLAIN = [f"i{n}" for n in range(1, 9)]
"""What someone who took i0 gets: its neighbors, nearest first."""


@pytest.fixture
def state(tmp_path: Path) -> DomainState:
    write_release(tmp_path, ITEMS, NEAR)
    state = stocked(
        domain_state(SHOP, clock=lambda: NOW), CATEGORIES, brand={"i3": "House", "i5": "House", "i7": "Other"}
    )
    serve(state, read_release(tmp_path))
    return state


ANN = state_of(("view", "i0"))


def test_without_options_the_list_is_the_ranking(state: DomainState) -> None:
    answer = look_up(state, ANN, LookupRequest("shop", 4))
    assert ids(answer) == PLAIN[:4]
    assert (answer.applied, answer.unmet, answer.items[0].propensity) == ([], [], None)
    assert answer.items[0].score == pytest.approx(0.3 * 0.95, abs=1e-4)


def test_rules_pin_boost_bury_and_exclude_and_say_so(state: DomainState) -> None:
    follow(
        state,
        Rule(id="p", action="pin", position=2, items=["i11", "i10"]),
        Rule(id="x", action="exclude", items=["i1"]),
        Rule(id="house", action="boost", factor=2.0, where={"brand": "House"}),
        Rule(id="less", action="bury", factor=0.1, items=["i2"]),
        Rule(id="idle", action="boost", factor=2.0, items=["nowhere"]),
    )
    answer = look_up(state, ANN, LookupRequest("shop", 6, explain=True))
    assert ids(answer) == ["i3", "i11", "i10", "i5", "i4", "i6"]
    assert [item.reason for item in answer.items[:3]] == ["personal", "pinned", "pinned"]
    assert answer.applied == ["p", "house", "x"]
    first, second = answer.items[:2]
    assert first.rules is not None
    assert [(effect.rule, effect.action, effect.factor) for effect in first.rules] == [("house", "boost", 2.0)]
    assert second.rules is not None
    assert [(effect.rule, effect.action, effect.position) for effect in second.rules] == [("p", "pin", 2)]
    assert second.why is not None
    assert (second.why.code, second.why.rule) == ("pinned", "p")
    assert look_up(state, ANN, LookupRequest("shop", 6)).items[0].rules is None


def test_a_pin_by_attribute_takes_the_best_of_them_from_anywhere_in_the_ranking(state: DomainState) -> None:
    follow(state, Rule(id="p", action="pin", position=1, where={"brand": "Other"}))
    assert ids(look_up(state, ANN, LookupRequest("shop", 3))) == ["i7", "i1", "i2"]
    follow(state, Rule(id="p", action="pin", position=3, where={"category": "books"}))
    assert ids(look_up(state, None, LookupRequest("shop", 3)))[2] == "i9"  # nothing known: the first of the catalogue


def test_pins_that_meet_take_the_next_place(state: DomainState) -> None:
    follow(
        state,
        Rule(id="a", action="pin", position=1, items=["i8"]),
        Rule(id="b", action="pin", position=1, items=["i9"]),
    )
    assert ids(look_up(state, ANN, LookupRequest("shop", 3))) == ["i8", "i9", "i1"]


def test_what_is_gone_or_unwanted_or_excluded_cannot_be_pinned(state: DomainState) -> None:
    follow(
        state,
        Rule(id="p", action="pin", position=1, items=["i6", "i7", "i8"]),
        Rule(id="x", action="exclude", items=["i8"]),
    )
    state.put_items([CatalogueEntry(item_id="i6", at=NOW, available=False)])
    assert ids(look_up(state, state_of(("hide", "i7"), ("view", "i0")), LookupRequest("shop", 2))) == ["i1", "i2"]


def test_rules_for_a_segment_or_a_share_of_users_hold_for_them_only(state: DomainState) -> None:
    follow(
        state,
        Rule(id="s", action="exclude", items=["i1"], segment="young"),
        Rule(id="h", action="boost", factor=100.0, items=["i8"], share=0.5),
    )
    assert "i1" not in ids(look_up(state, ANN, LookupRequest("shop", 8), segment="young"))
    assert "i1" in ids(look_up(state, ANN, LookupRequest("shop", 8)))
    firsts = Counter(ids(look_up(state, ANN, LookupRequest("shop", 8), user_id=f"u{n}"))[0] for n in range(200))
    assert 70 <= firsts["i8"] <= 130
    assert firsts["i8"] + firsts["i1"] == 200


def test_rules_hold_for_lists_that_no_release_ranks(state: DomainState) -> None:
    state.domain.set_popular({"": {"i0": 5.0, "i1": 4.0, "i2": 3.0, "i3": 2.0}})
    follow(
        state,
        Rule(id="x", action="exclude", items=["i1"]),
        Rule(id="b", action="boost", factor=10.0, items=["i3"]),
    )
    assert ids(look_up(state, None, LookupRequest("shop", 3))) == ["i3", "i0", "i2"]


def test_rules_follow_items_that_change_and_releases_that_are_swapped(state: DomainState, tmp_path: Path) -> None:
    follow(state, Rule(id="x", action="exclude", where={"brand": "House"}))
    assert "i3" not in ids(look_up(state, ANN, LookupRequest("shop", 8)))
    state.put_items([CatalogueEntry(item_id="i3", at=NOW, category="tea", attributes={"brand": "Sold"})])
    state.put_items([CatalogueEntry(item_id="i1", at=NOW, category="tea", attributes={"brand": "House"})])
    for _ in range(2):
        listed = ids(look_up(state, ANN, LookupRequest("shop", 8)))
        assert "i3" in listed
        assert not {"i1", "i5"} & set(listed)
        serve(state, read_release(tmp_path))
    follow(state)
    assert ids(look_up(state, ANN, LookupRequest("shop", 8))) == PLAIN


def test_rules_and_candidates_of_a_request(state: DomainState) -> None:
    own = (
        Rule(id="own", action="boost", factor=3.0, where={"category": "cups"}),
        Rule(id="not", action="exclude", where={"brand": Condition(absent=True), "category": "tea"}),
    )
    answer = look_up(state, ANN, LookupRequest("shop", 4, rules=own))
    assert ids(answer) == ["i6", "i7", "i8", "i3"]
    assert answer.applied == ["own", "not"]
    only = LookupRequest("shop", 5, candidates=frozenset({"i4", "i2", "i11", "never-seen"}))
    assert ids(look_up(state, ANN, only)) == ["i2", "i4", "i11", "never-seen"]


def test_a_floor_is_kept_from_the_whole_catalogue_and_what_cannot_be_is_said(state: DomainState) -> None:
    answer = look_up(state, ANN, LookupRequest("shop", 3, per_category=1))
    assert ids(answer) == ["i1", "i6", "i9"]
    assert answer.unmet == []
    spread = look_up(state, ANN, LookupRequest("shop", 4, categories=3))
    assert ids(spread) == ["i1", "i2", "i6", "i9"]
    assert spread.unmet == []
    wide = look_up(state, ANN, LookupRequest("shop", 5, categories=4))
    assert wide.unmet == ["categories"]
    assert len(wide.items) == 5
    narrow = look_up(state, ANN, LookupRequest("shop", 5, per_category=1))
    assert (ids(narrow), narrow.unmet) == (["i1", "i6", "i9"], ["n"])


def test_pins_count_towards_a_floor(state: DomainState) -> None:
    follow(state, Rule(id="p", action="pin", position=2, items=["i5"]))
    assert ids(look_up(state, ANN, LookupRequest("shop", 3, per_category=1))) == ["i6", "i5", "i9"]


def test_diversity_lets_the_like_give_way(state: DomainState) -> None:
    plain, diverse = (look_up(state, ANN, LookupRequest("shop", 6, diversity=diversity)) for diversity in (0.0, 0.6))
    assert ids(plain) == PLAIN[:6]
    assert ids(diverse)[0] == "i1"
    assert CATEGORIES[ids(diverse)[1]] != "tea"
    other = look_up(state, ANN, LookupRequest("shop", 6, diversity=0.6, diversify="dpp"))
    assert ids(other)[0] == "i1"
    assert len({CATEGORIES[item_id] for item_id in ids(other)[:3]}) > 1
    assert ids(look_up(state, ANN, LookupRequest("shop", 3, diversity=0.6, diversify="dpp", per_category=1)))[0] == "i1"


def test_exploration_shows_what_its_propensities_say_and_never_in_the_first_place(state: DomainState) -> None:
    state.put_items([CatalogueEntry(item_id="brand-new", at=NOW, title="New", category="tea")])
    times, seen = 3_000, Counter[tuple[int, str]]()
    propensities: dict[tuple[int, str], float] = {}
    ask = LookupRequest("shop", 3, explore=0.4)
    for n in range(times):
        for place, item in enumerate(look_up(state, ANN, ask, request_id=f"r{n}").items):
            assert item.propensity is not None
            seen[place, item.item_id] += 1
            propensities[place, item.item_id] = item.propensity
    assert propensities[0, "i1"] == 1.0
    assert {item for place, item in seen if place == 0} == {"i1"}
    assert propensities[1, "i2"] == propensities[2, "i3"] == pytest.approx(0.6)
    for key, count in seen.items():
        assert count / times == pytest.approx(propensities[key], abs=0.03)  # more than three standard errors
    for place in (1, 2):
        assert sum(value for (slot, _), value in propensities.items() if slot == place) == pytest.approx(1.0)
    assert "brand-new" in {item for _, item in seen}


def test_the_same_request_explores_the_same(state: DomainState) -> None:
    ask = LookupRequest("shop", 4, explore=0.5)
    answers = [look_up(state, ANN, ask, request_id=f"r{n}") for n in range(30)]
    assert answers == [look_up(state, ANN, ask, request_id=f"r{n}") for n in range(30)]
    assert any(item.reason == "explored" for answer in answers for item in answer.items)


def test_exploration_breaks_no_floor(state: DomainState) -> None:
    ask = LookupRequest("shop", 3, per_category=1, explore=0.5)
    for n in range(100):
        assert len({CATEGORIES[item_id] for item_id in ids(look_up(state, ANN, ask, request_id=f"r{n}"))}) == 3


def test_hidden_items_stay_away_when_their_event_has_left_the_history(state: DomainState) -> None:
    many = [("view", "i0")] * 60
    activity = state_of(("hide", "i1"), *many)
    assert "i1" not in activity.recent.items
    assert "i1" not in ids(look_up(state, activity, LookupRequest("shop", 12)))
    assert "i1" not in ids(look_up(state, activity, LookupRequest("shop", 12, candidates=frozenset(ITEMS))))
    again = state_of(("hide", "i1"), *many, ("like", "i1"))
    assert "i1" in ids(look_up(state, again, LookupRequest("shop", 12)))


def test_a_skip_lowers_what_is_near_until_the_item_is_taken_up_again(state: DomainState) -> None:
    """i9's nearest neighbour is i2: skipped, i2 keeps 1 - .2 of its score; disliked, 1 - .5. i10 has .8 of that."""
    before = look_up(state, ANN, LookupRequest("shop", 8))
    score = {item.item_id: item.score for item in before.items}
    skipped = {
        item.item_id: item.score
        for item in look_up(state, state_of(("view", "i0"), ("skip", "i9")), LookupRequest("shop", 8)).items
    }
    assert skipped["i2"] == pytest.approx(0.8 * score["i2"], rel=1e-3)
    assert skipped["i3"] == pytest.approx(score["i3"], rel=1e-3)
    disliked = look_up(state, state_of(("view", "i0"), ("dislike", "i9")), LookupRequest("shop", 12))
    assert {item.item_id: item.score for item in disliked.items}["i2"] == pytest.approx(0.5 * score["i2"], rel=1e-3)
    assert "i9" not in ids(disliked)
    lifted = look_up(state, state_of(("view", "i0"), ("skip", "i9"), ("like", "i9")), LookupRequest("shop", 8))
    assert {item.item_id: item.score for item in lifted.items}["i2"] > score["i2"]


def test_items_expire_and_new_ones_come(tmp_path: Path) -> None:
    now = [NOW]
    write_release(tmp_path, ITEMS, NEAR)
    state = stocked(domain_state(SHOP, clock=lambda: now[0]), CATEGORIES)
    serve(state, read_release(tmp_path))
    follow(state, Rule(id="p", action="pin", position=1, items=["i5"]))
    state.domain.set_popular({"": {"i5": 5.0, "i0": 1.0}})
    state.put_items([CatalogueEntry(item_id="i5", at=NOW, category="tea", expires_at=NOW + 1000)])
    state.put_items([CatalogueEntry(item_id="late", at=NOW, category="tea", expires_at=NOW - 1)])
    state.tick()
    assert ids(look_up(state, ANN, LookupRequest("shop", 2))) == ["i5", "i1"]
    now[0] = NOW + 1000
    state.tick()
    assert "i5" not in ids(look_up(state, ANN, LookupRequest("shop", 12)))
    assert "i5" not in ids(look_up(state, None, LookupRequest("shop", 12)))
    assert not state.view.shows("i5")
    assert not state.view.shows("late")
    state.put_items([CatalogueEntry(item_id="i5", at=NOW, category="tea", expires_at=NOW + 9000)])
    assert ids(look_up(state, ANN, LookupRequest("shop", 2))) == ["i5", "i1"]


def test_reasons_name_the_event_that_did_most(state: DomainState) -> None:
    activity = state_of(("purchase", "i9"), ("view", "i0"))
    items = {item.item_id: item for item in look_up(state, activity, LookupRequest("shop", 10, explain=True)).items}
    second, first = items["i2"].why, items["i1"].why  # i2: .5 * 1 from i9 bought, .9 * .3 from i0 viewed
    assert second is not None
    assert first is not None
    assert (second.code, second.item_id, second.title, second.by) == ("because_you_bought", "i9", "I9", "contribution")
    assert second.text == "because you bought I9"
    assert (first.code, first.item_id, first.kind, first.at) == ("because_you_viewed", "i0", "view", NOW + 1000)


def test_reasons_of_lists_that_no_release_ranks(state: DomainState) -> None:
    state.domain.set_popular({"": {"i0": 5.0}, "young": {"i4": 2.0}})
    answer = look_up(state, None, LookupRequest("shop", 3, explain=True), segment="young")
    codes = [item.why.code for item in answer.items if item.why is not None]
    assert codes == ["popular_in_segment", "popular_in_category", "new"]


def test_a_search_for_a_category_by_name_leads_there_and_is_the_reason() -> None:
    from features.activity import FoldSettings, LoggedEvent, apply
    from stream.events import Search

    state = stocked(domain_state(SHOP, clock=lambda: NOW), CATEGORIES)
    search = Search(event_id="q", user_id="ann", query=" Books ", at=NOW)
    activity = apply(None, [LoggedEvent(search, "events/0", 0)], FoldSettings())
    answer = look_up(state, activity, LookupRequest("shop", 2, explain=True))
    assert ids(answer) == ["i9", "i10"]
    assert answer.items[0].why is not None
    assert answer.items[0].why.code == "because_you_searched"


def test_a_list_of_the_catalogue_reaches_what_comes_late_in_it() -> None:
    many = [f"m{n}" for n in range(FIRST_OF_CATALOGUE + 30)]
    state = stocked(domain_state(SHOP, clock=lambda: NOW), dict.fromkeys(many))
    assert ids(look_up(state, None, LookupRequest("shop", 20))) == many[:20]
    follow(state, Rule(id="x", action="exclude", items=many[:FIRST_OF_CATALOGUE]))
    assert ids(look_up(state, None, LookupRequest("shop", 20))) == many[FIRST_OF_CATALOGUE : FIRST_OF_CATALOGUE + 20]


def test_someone_without_a_history_gets_what_the_release_knows_of_new_users(state: DomainState) -> None:
    known = release_view(state).release
    neighbors, similarities = known.neighbors
    first = FirstEvents()
    first.vocabulary, first.popularity = known.vocabulary, np.eye(12, dtype=np.float32)[4]
    arrays = {"popularity": known.popularity, "neighbors": neighbors, "similarities": similarities}
    assert look_up(state, None, LookupRequest("shop", 3)).reason != "personal"
    serve(state, Release(msgspec.structs.replace(known.manifest, id="first"), first, arrays))
    answer = look_up(state, None, LookupRequest("shop", 3))
    assert (ids(answer)[0], answer.reason, answer.release) == ("i4", "personal", "first")
