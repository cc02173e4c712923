"""Live popularity by number of known events: look-ups give what the evaluation measured, from the stream's counts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features import popularity
from features.activity import History, LoggedEvent
from models.arrays import Float64
from models.data.batch import batch_histories
from models.data.interactions import Interactions
from models.data.profiles import RequestContext
from models.domains.preset import DomainPreset, FreshnessPreset, PopularityPreset, TrainingPreset
from models.recommenders import registry
from models.recommenders.base import TuningContext
from models.recommenders.blend import BUCKETS, Blend
from models.recommenders.item_knn import ItemKNN
from models.releases.release import Release
from serving.catalogue.domain import DomainPolicy
from serving.catalogue.domain_state import DomainState
from serving.recommend.request import LookupRequest
from stream.events import KIND_CODES, Interaction
from testing.lookups import domain_state, look_up, release_view, serve
from testing.recommender_contract import save_and_load

HOUR = 60 * 60 * 1000
DAY = 24 * HOUR
NOW = 1_760_000_000_000
KINDS = ("view", "cart", "purchase")
PRESET = DomainPreset(
    popularity=PopularityPreset("7d"), training=TrainingPreset(members=["item-knn", "live-1d", "live-7d", "live-30d"])
)


def weights() -> Float64:
    """More of the clock where less is known; a row for each number of events."""
    live = np.linspace(0.9, 0.1, BUCKETS)
    return np.stack([1 - live, live / 2, live / 3, live / 6], axis=1)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Sixty days: 400 events of 40 users on 30 items, later items in later days."""
    rng = np.random.default_rng(0)
    at = np.sort(NOW - rng.integers(HOUR, 60 * DAY, 400))
    ages = (NOW - at) / (60 * DAY)
    items = np.minimum((rng.beta(1, 3, 400) * 15 + 15 * (1 - ages)).astype(int), 29)
    return pd.DataFrame(
        {
            "user_id": [f"u{n}" for n in rng.integers(0, 40, 400)],
            "item_id": [f"i{n}" for n in items],
            "kind": rng.choice(KINDS, 400),
            "at": at,
        }
    )


@pytest.fixture(scope="module")
def offline(frame: pd.DataFrame) -> Blend:
    """As the evaluation fits it: live popularity counts all events, and reads those before each request."""
    names = PRESET.training.members
    blend = Blend([registry.create(name, {}, TuningContext(True), 0) for name in names], weights())
    blend.fit(Interactions.from_frame(frame))
    return blend


@pytest.fixture(scope="module")
def release(offline: Blend, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return save_and_load(offline, tmp_path_factory.mktemp("releases"))


def counted(frame: pd.DataFrame, preset: DomainPreset, partitions: int = 3) -> popularity.DomainPopularity:
    """The frame's events as the consumer counts them, and as a refresh reads them."""
    entries: list[list[LoggedEvent]] = [[] for _ in range(partitions)]
    for number, row in enumerate(frame.itertuples()):
        event = Interaction(event_id=f"e{number}", user_id=row.user_id, item_id=row.item_id, kind=row.kind, at=row.at)
        entries[number % partitions].append(LoggedEvent(event, f"events/{number % partitions}", number))
    settings = {"shop": preset.counting}
    rows = [popularity.apply(None, part, settings) for part in entries]
    return popularity.merge([popularity.most_popular(row) for row in rows]).domains["shop"]


def serving(release: Release, frame: pd.DataFrame, preset: DomainPreset = PRESET) -> DomainState:
    state = domain_state(DomainPolicy.of(preset))
    serve(state, release)
    counts = counted(frame, preset)
    state.domain.set_popular(counts.segments, {half: each.items for half, each in counts.live.items()})
    state.refresh_popularity()
    return state


def histories() -> list[History]:
    lengths = (0, 1, 2, 3, 5, 8, 15, 30)
    items: Sequence[list[str]] = [[f"i{(3 * n + length) % 30}" for n in range(length)] for length in lengths]
    return [History(ids, [KIND_CODES["view"]] * len(ids), [NOW - DAY] * len(ids), [None] * len(ids)) for ids in items]


def test_a_look_up_scores_as_the_evaluation_did(release: Release, offline: Blend, frame: pd.DataFrame) -> None:
    contexts = [RequestContext(None, NOW)] * len(histories())
    measured = offline.score(batch_histories(histories(), offline.vocabulary, 50, contexts))
    served = release_view(serving(release, frame)).scores(histories(), contexts)
    assert np.allclose(served, measured, atol=1e-6)
    assert np.array_equal(served.argsort(axis=1), measured.argsort(axis=1))


def test_without_counts_only_the_rest_of_the_blend_speaks(release: Release, offline: Blend) -> None:
    state = domain_state(DomainPolicy.of(PRESET))
    serve(state, release)
    served = release_view(state).scores(histories())
    knn = offline.members[0].probabilities(batch_histories(histories(), offline.vocabulary, 50))
    assert np.allclose(served, knn * served.sum(axis=1, keepdims=True), atol=1e-6)


def test_new_counts_reach_the_next_look_up_and_the_earlier_view_stays(release: Release, frame: pd.DataFrame) -> None:
    state = serving(release, frame)
    before = release_view(state)
    first = before.scores(histories())
    month = {half: {"i0": 5.0} for half in (DAY, 30 * DAY)}
    state.domain.set_popular({"": {"i0": 5.0}}, month)
    assert release_view(state) is before  # until the refresh
    state.refresh_popularity()
    place = release.index["i0"]
    assert (release_view(state).scores(histories())[:, place] > first[:, place]).all()
    assert np.array_equal(before.scores(histories()), first)


def test_a_new_user_gets_what_is_popular_now_and_is_told_so(release: Release, frame: pd.DataFrame) -> None:
    state = serving(release, frame)
    request = LookupRequest("shop", 5, explain=True)
    answer = look_up(state, None, request, user_id="nobody", request_id="r", now_ms=NOW)
    counts = counted(frame, PRESET).live[DAY].items
    assert answer.items[0].item_id in sorted(counts, key=lambda item: -counts[item])[:3]
    assert {item.why.code for item in answer.items if item.why is not None} == {"popular_now"}


def test_where_items_age_the_blends_own_shares_replace_the_domains(
    release: Release, offline: Blend, frame: pd.DataFrame, tmp_path: Path
) -> None:
    """Without times of first events nothing ages, so the scores are the blend's; new items have places."""
    preset = DomainPreset(
        popularity=PRESET.popularity, training=PRESET.training, freshness=FreshnessPreset("8d", live=0.8)
    )
    contexts = [RequestContext(None, NOW)] * len(histories())
    measured = offline.score(batch_histories(histories(), offline.vocabulary, 50, contexts))
    view = release_view(serving(release, frame, preset))
    assert np.allclose(view.scores(histories(), contexts)[:, : len(release.item_ids)], measured, atol=1e-6)
    alone = save_and_load(fitted_item_knn(frame), tmp_path)
    shares = release_view(serving(alone, frame, preset)).scores(histories(), contexts)
    assert shares[:, : len(alone.item_ids)].sum(axis=1) == pytest.approx(1.0, abs=1e-4)


def fitted_item_knn(frame: pd.DataFrame) -> ItemKNN:
    recommender = ItemKNN()
    recommender.fit(Interactions.from_frame(frame))
    return recommender
