"""Freshness at a look-up, and a domain's habits: releases and catalogue in memory, no process."""

import time
from pathlib import Path

import numpy as np
import pytest

from features.activity import Activity, History
from features.catalogue import CatalogueEntry
from features.popularity import EVERYONE
from models.data.interactions import Interactions
from models.domains.preset import DomainPreset, FilterPreset, FreshnessPreset, SeenPolicy
from models.recommenders.freshness import FIRST_SEEN
from models.recommenders.item_knn import ItemKNN
from models.releases import release_store
from models.releases.manifest import Manifest
from models.releases.release import Release
from serving.catalogue.domain import DomainPolicy
from serving.catalogue.domain_state import DomainState
from serving.recommend.request import LookupRequest
from stream.events import KIND_CODES
from testing.lookups import domain_state, ids, look_up, release_view, serve

HOUR = 60 * 60 * 1000
NOW = 1_760_000_000_000
CLICK, SKIP = KIND_CODES["click"], KIND_CODES["skip"]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Whoever reads `start` reads `old` twice as often as `new`; `old` is a day older."""
    import pandas as pd

    rows = [(f"u{n}", item, "click", NOW) for n in range(12) for item in ("start", "old" if n < 8 else "new")]
    log = Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]))
    model = ItemKNN(ItemKNN.Params(shrink=0.0))
    model.fit(log)
    first = np.array(
        [{"start": NOW - 24 * HOUR, "old": NOW - 24 * HOUR, "new": NOW}[i] for i in log.vocabulary.item_ids]
    )
    root = tmp_path_factory.mktemp("releases")
    blank = Manifest("20260101T000000-aaaaaa", "news", "item-knn", NOW, NOW, 0, 24, 12, {}, model.describe())

    def write(folder: Path) -> list[str]:
        np.save(folder / f"{FIRST_SEEN}.npy", first)
        return [*model.save(folder), f"{FIRST_SEEN}.npy"]

    release_store.save(root, blank, log.vocabulary.item_ids, write)
    return release_store.load(root / "news" / blank.id)


def serving(release: Release, **preset: object) -> DomainState:
    state = domain_state(DomainPolicy.of(DomainPreset(**preset)))  # type: ignore[arg-type]
    serve(state, release)
    return state


def recommended(
    state: DomainState, *events: tuple[str, int, int], now_ms: int = NOW, n: int = 10, seen: bool | None = None
) -> list[str]:
    items, kinds, times = ([event[place] for event in events] for place in range(3))
    activity = Activity(History(items, kinds, times, [None] * len(events)))
    request = LookupRequest("news", n, seen)
    return ids(look_up(state, activity, request, user_id=None, request_id="r", now_ms=now_ms))


def test_without_freshness_scores_are_the_releases(release: Release) -> None:
    state = serving(release, seen=SeenPolicy("keep"))
    assert release_view(state).release is release
    assert recommended(state, ("start", CLICK, NOW))[:2] == ["old", "new"]


def test_an_older_item_falls_behind_a_newer_one(release: Release) -> None:
    state = serving(release, freshness=FreshnessPreset("6h"))
    assert recommended(state, ("start", CLICK, NOW)) == ["new", "old"]


def test_what_is_popular_now_leads_also_where_the_release_does_not_know_it(release: Release) -> None:
    state = serving(release, freshness=FreshnessPreset("100d", 0.9))
    assert recommended(state, ("start", CLICK, NOW)) == ["old", "new"]
    state.domain.set_popular({EVERYONE: {"flash": 30.0, "new": 10.0, "old": 1.0}})
    state.refresh_popularity()
    assert recommended(state, ("start", CLICK, NOW)) == ["flash", "new", "old"]
    state.put_items([CatalogueEntry(item_id="flash", at=NOW, domain="news", available=False)])
    assert recommended(state, ("start", CLICK, NOW)) == ["new", "old"]
    state.put_items([CatalogueEntry(item_id="flash", at=NOW, domain="news")])
    assert recommended(state, ("start", CLICK, NOW), ("flash", CLICK, NOW)) == ["new", "old"]  # read: masked
    assert recommended(state, ("flash", CLICK, NOW))[:1] == ["new"]  # nothing the release knows: what is popular


def test_what_owes_its_place_to_the_minutes_says_so(release: Release) -> None:
    """`new`: .9 of 10/41 by the minutes, .1 of a third by the release; `old`: .9 of 1/41, .1 of two thirds."""
    state = serving(release, seen=SeenPolicy("mask"), freshness=FreshnessPreset("100d", 0.9))
    now = int(time.time() * 1000)
    state.put_items([CatalogueEntry(item_id="sheet", at=now, domain="news", attributes={"published_at": now})])
    state.domain.set_popular({EVERYONE: {"flash": 30.0, "new": 10.0, "old": 1.0}})
    state.refresh_popularity()
    activity = Activity(History(["start"], [CLICK], [NOW], [None]))
    answer = look_up(state, activity, LookupRequest("news", 10, explain=True), user_id=None, request_id="r")
    items = {item.item_id: item for item in answer.items}
    codes = {item_id: item.why.code for item_id, item in items.items() if item.why is not None}
    assert codes == {"flash": "popular_now", "new": "popular_now", "old": "because_you_clicked", "sheet": "new"}
    assert {item.reason for item in items.values()} == {"personal"}
    assert [item_id for item_id, item in items.items() if item.because] == ["old"]


def test_an_item_that_was_published_and_not_read_yet_can_be_reached(release: Release) -> None:
    state = serving(release, freshness=FreshnessPreset("6h", 0.5))
    now = int(time.time() * 1000)
    state.put_items(
        [
            CatalogueEntry(item_id=f"p{n}", at=now, domain="news", attributes={"published_at": now - n * HOUR})
            for n in (9, 1)
        ]
    )
    state.domain.set_popular({EVERYONE: {"new": 10.0, "old": 1.0}})
    state.refresh_popularity()
    listed = recommended(state, ("start", CLICK, NOW))
    assert set(listed) == {"new", "old", "p1", "p9"}
    assert listed.index("p1") < listed.index("p9")


def test_places_to_spare_never_answer_and_end(release: Release) -> None:
    state = serving(release, freshness=FreshnessPreset("6h", 0.5))
    state.domain.set_popular({EVERYONE: {f"x{n}": 1.0 for n in range(1_500)}})
    state.refresh_popularity()
    listed = recommended(state, ("start", CLICK, NOW), n=200)
    assert len(listed) == 200
    assert all(not item.startswith("\x00") for item in listed)
    assert len(release_view(state).release.item_ids) == len(release.item_ids) + 1_024
    assert len(release_view(state).release.index) == len(release_view(state).release.item_ids)
    assert len(release.item_ids) == 3  # the release itself stays as it was


def test_seen_and_unwanted_are_the_domains(release: Release) -> None:
    taken = (("start", CLICK, NOW - 3 * HOUR), ("new", CLICK, NOW - HOUR), ("old", SKIP, NOW - 3 * HOUR))
    assert set(recommended(serving(release, seen=SeenPolicy("keep")), *taken)) == {"start", "new", "old"}
    assert set(recommended(serving(release, seen=SeenPolicy("within", "2h")), *taken)) == {"start", "old"}
    assert recommended(serving(release, seen=SeenPolicy("mask")), *taken) == []
    assert set(recommended(serving(release, seen=SeenPolicy("mask")), *taken, seen=False)) == {"start", "new", "old"}
    skips = serving(release, seen=SeenPolicy("keep"), filters=FilterPreset(["skip"]))
    assert set(recommended(skips, *taken)) == {"start", "new"}


def test_a_release_weighs_kinds_as_its_domain_did(release: Release, tmp_path: Path) -> None:
    assert release.knows(History(["start"], [CLICK], [NOW], [None]))
    assert not release.knows(History(["start"], [SKIP], [NOW], [None]))
    model = release.recommender
    params = {**model.describe(), "kinds": {"skip": 1.0}}
    odd = Manifest("20260101T000000-bbbbbb", "news", "item-knn", NOW, NOW, 0, 24, 12, {}, params)
    release_store.save(tmp_path, odd, release.item_ids, model.save)
    other = release_store.load(tmp_path / "news" / odd.id)
    assert other.knows(History(["start"], [SKIP], [NOW], [None]))
    assert not other.knows(History(["start"], [CLICK], [NOW], [None]))
    start = other.index["start"]
    scores = other.scores([History(["start"], [SKIP], [NOW], [None]), History(["start"], [CLICK], [NOW], [None])])
    assert scores[0].argmax() != start  # neighbors of what was skipped
    assert scores[1].argmax() == start  # nothing is known: popularity
