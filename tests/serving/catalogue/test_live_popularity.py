"""Freshness at a look-up, and a domain's habits: releases and catalogue in memory, no process."""

import time
from pathlib import Path

import numpy as np
import pytest

from features.activity import Activity, History
from features.popularity import EVERYONE
from models.data.interactions import Log
from models.domains.preset import DomainPreset, Filters, Freshness, Seen
from models.recommenders.freshness import FIRST_SEEN
from models.recommenders.item_item import ItemKNN
from models.releases import release_store
from models.releases.manifest import Manifest
from models.releases.release import Release
from serving.catalogue.domain import Domain, Habits
from serving.recommend.pipeline import Ask, answer, best, personal, query, score
from stream.events import KIND_CODES, Item

HOUR = 60 * 60 * 1000
NOW = 1_760_000_000_000
CLICK, SKIP = KIND_CODES["click"], KIND_CODES["skip"]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Whoever reads `start` reads `old` twice as often as `new`; `old` is a day older."""
    import pandas as pd

    rows = [(f"u{n}", item, "click", NOW) for n in range(12) for item in ("start", "old" if n < 8 else "new")]
    log = Log.of(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]))
    model = ItemKNN(shrink=0.0)
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


def home(release: Release, **preset: object) -> Domain:
    made = Domain(Habits.of(DomainPreset(**preset)))  # type: ignore[arg-type]
    made.begin()
    made.adopt(made.align(release))
    return made


def asked(
    domain: Domain, *taken: tuple[str, int, int], now_ms: int = NOW, n: int = 10, seen: bool | None = None
) -> list[str]:
    items, kinds, times = ([one[place] for one in taken] for place in range(3))
    state = Activity(History(items, kinds, times, [None] * len(taken)))
    one = query(state, Ask("news", n, seen), domain.habits, now_ms)
    ranked = []
    if domain.aligned is not None and personal(domain.aligned, one):
        (ranked,) = best(domain.aligned, [one], score(domain.aligned, [one]))
    return [found.item_id for found in answer(domain, one, ranked, request_id="r").items]


def test_without_freshness_scores_are_the_releases(release: Release) -> None:
    domain = home(release, seen=Seen("keep"))
    assert domain.aligned is not None
    assert domain.aligned.release is release
    assert asked(domain, ("start", CLICK, NOW))[:2] == ["old", "new"]


def test_an_older_item_falls_behind_a_newer_one(release: Release) -> None:
    domain = home(release, freshness=Freshness("6h"))
    assert asked(domain, ("start", CLICK, NOW)) == ["new", "old"]


def test_what_is_popular_now_leads_also_where_the_release_does_not_know_it(release: Release) -> None:
    domain = home(release, freshness=Freshness("100d", 0.9))
    assert asked(domain, ("start", CLICK, NOW)) == ["old", "new"]
    domain.set_popular({EVERYONE: {"flash": 30.0, "new": 10.0, "old": 1.0}})
    domain.freshen(domain.aligned)
    assert asked(domain, ("start", CLICK, NOW)) == ["flash", "new", "old"]
    domain.put([Item(item_id="flash", at=NOW, domain="news", available=False)])
    assert asked(domain, ("start", CLICK, NOW)) == ["new", "old"]
    domain.put([Item(item_id="flash", at=NOW, domain="news")])
    assert asked(domain, ("start", CLICK, NOW), ("flash", CLICK, NOW)) == ["new", "old"]  # read: masked
    assert asked(domain, ("flash", CLICK, NOW))[:1] == ["new"]  # nothing the release knows: what is popular


def test_what_owes_its_place_to_the_minutes_says_so(release: Release) -> None:
    """`new`: .9 of 10/41 by the minutes, .1 of a third by the release; `old`: .9 of 1/41, .1 of two thirds."""
    domain = home(release, seen=Seen("mask"), freshness=Freshness("100d", 0.9))
    now = int(time.time() * 1000)
    domain.put([Item(item_id="sheet", at=now, domain="news", attributes={"published_at": now})])
    domain.set_popular({EVERYONE: {"flash": 30.0, "new": 10.0, "old": 1.0}})
    domain.freshen(domain.aligned)
    state = Activity(History(["start"], [CLICK], [NOW], [None]))
    one = query(state, Ask("news", 10, explain=True), domain.habits, NOW)
    assert domain.aligned is not None
    (ranked,) = best(domain.aligned, [one], score(domain.aligned, [one]))
    found = {item.item_id: item for item in answer(domain, one, ranked, request_id="r").items}
    codes = {item: one.why.code for item, one in found.items() if one.why is not None}
    assert codes == {"flash": "popular_now", "new": "popular_now", "old": "because_you_clicked", "sheet": "new"}
    assert {item.reason for item in found.values()} == {"personal"}
    assert [item for item, one in found.items() if one.because] == ["old"]


def test_an_item_that_was_published_and_not_read_yet_can_be_reached(release: Release) -> None:
    domain = home(release, freshness=Freshness("6h", 0.5))
    now = int(time.time() * 1000)
    domain.put(
        [Item(item_id=f"p{n}", at=now, domain="news", attributes={"published_at": now - n * HOUR}) for n in (9, 1)]
    )
    domain.set_popular({EVERYONE: {"new": 10.0, "old": 1.0}})
    domain.freshen(domain.aligned)
    found = asked(domain, ("start", CLICK, NOW))
    assert set(found) == {"new", "old", "p1", "p9"}
    assert found.index("p1") < found.index("p9")


def test_places_to_spare_never_answer_and_end(release: Release) -> None:
    domain = home(release, freshness=Freshness("6h", 0.5))
    domain.set_popular({EVERYONE: {f"x{n}": 1.0 for n in range(1_500)}})
    domain.freshen(domain.aligned)
    found = asked(domain, ("start", CLICK, NOW), n=200)
    assert len(found) == 200
    assert all(not item.startswith("\x00") for item in found)
    assert domain.aligned is not None
    assert len(domain.aligned.release.item_ids) == len(release.item_ids) + 1_024
    assert len(domain.aligned.release.index) == len(domain.aligned.release.item_ids)
    assert len(release.item_ids) == 3  # the release itself stays as it was


def test_seen_and_unwanted_are_the_domains(release: Release) -> None:
    taken = (("start", CLICK, NOW - 3 * HOUR), ("new", CLICK, NOW - HOUR), ("old", SKIP, NOW - 3 * HOUR))
    assert set(asked(home(release, seen=Seen("keep")), *taken)) == {"start", "new", "old"}
    assert set(asked(home(release, seen=Seen("within", "2h")), *taken)) == {"start", "old"}
    assert asked(home(release, seen=Seen("mask")), *taken) == []
    assert set(asked(home(release, seen=Seen("mask")), *taken, seen=False)) == {"start", "new", "old"}
    skips = home(release, seen=Seen("keep"), filters=Filters(["skip"]))
    assert set(asked(skips, *taken)) == {"start", "new"}


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
    assert scores[0].argmax() != start  # neighbours of what was skipped
    assert scores[1].argmax() == start  # nothing is known: popularity
