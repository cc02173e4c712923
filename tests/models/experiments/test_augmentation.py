"""Augmentation of young shops: where a generator knows more than the shop it has to pass, elsewhere to fail."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.catalogue import CatalogueEntry
from models.data.item_features import ItemFeatures
from models.evaluation.cold_users import FoldPlan
from models.evaluation.opponent import Opponent, OpponentPlan
from models.experiments.augmentation import Augmentation, AugmentationArm, AugmentationPlan, YoungShop
from models.experiments.augmentation_events import (
    AddedEvents,
    check_kinds,
    combined,
    duplicated,
    lengthened,
    shuffled,
    tail_items,
    whole_users,
)
from models.experiments.augmentation_report import report_of
from models.experiments.report import ExperimentReport
from models.experiments.run import ExperimentRun, RunPlan, units_of
from models.synthesizers.article_gan import ArticleGAN
from models.synthesizers.base import SamplingOptions
from models.synthesizers.conditions import Conditions, SynthesisError
from models.synthesizers.histories import Histories
from models.synthesizers.markov import Markov
from models.synthesizers.registry import REGISTRY
from models.synthesizers.streams import RandomStreams
from stream.events import KIND_CODES

ITEMS = 60
EVENTS = 8
HOUR_MS = 3_600_000


def ring_frame(users: int = 150, seed: int = 0) -> pd.DataFrame:
    """Users who take eight items in a row from a ring of 60, each beginning anywhere."""
    starts = np.random.default_rng(seed).integers(ITEMS, size=users)
    items = (starts[:, None] + np.arange(EVENTS)) % ITEMS
    times = np.arange(users)[:, None] * HOUR_MS + np.arange(EVENTS) * 60_000
    return pd.DataFrame(
        {
            "user_id": np.repeat([f"u{user}" for user in range(users)], EVENTS),
            "item_id": [f"i{item:02}" for item in items.ravel()],
            "kind": "purchase",
            "at": 1_700_000_000_000 + times.ravel(),
        }
    )


class RingKnower(Markov):
    """A generator that knows the ring, whatever it is fitted on."""

    name = "ring"

    def generate(self, conditions: Sequence[Conditions], streams: RandomStreams, options: SamplingOptions) -> Histories:
        places = [self.vocabulary.index[f"i{item:02}"] for item in range(ITEMS)]
        starts = (streams.uniform(0, 0, 1)[:, 0] * ITEMS).astype(int)
        rows = np.array([[places[(start + step) % ITEMS] for step in range(EVENTS)] for start in starts], np.int32)
        size = rows.size
        return Histories(
            np.arange(0, size + 1, EVENTS),
            rows.ravel(),
            np.full(size, KIND_CODES["purchase"], np.int32),
            np.full(size, 1_700_000_000_000),
            np.full(size, np.nan, np.float32),
            np.zeros(size, np.int32),
        )


def plan_of(synthesizers: tuple[str, ...], members: tuple[str, ...], **changes: Any) -> AugmentationPlan:
    folds = FoldPlan(ks=(1, 2), folds=2, tuning_users=15)
    opponent = OpponentPlan(members=members, folds=folds, half_lives_ms=(), by_horizon=False)
    settings: dict[str, Any] = {"shares": (0.1,), "ratios": (4.0,), "kinds": ("users",), **changes}
    return AugmentationPlan(opponent=opponent, synthesizers=synthesizers, **settings)


def report(folder: Path, plan: AugmentationPlan, frame: pd.DataFrame, **known: Any) -> ExperimentReport:
    experiment = Augmentation(frame, plan, **known)
    units = units_of(2, 1, [scenario.name for scenario in plan.scenarios])
    run = ExperimentRun(folder, RunPlan("augmentation", "", {}))
    run.compute(units, experiment.results_of)
    facts = {"source": "ring", "events": len(frame), "users": 150, "items": ITEMS, "notes": []}
    return report_of(run, units, facts, plan, 0)[0]


def test_a_generator_that_knows_what_few_users_cannot_show_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REGISTRY, "ring", f"{__name__}:RingKnower")
    result = report(tmp_path, plan_of(("ring",), ("sequential-rules", "popularity")), ring_frame())
    assert [verdict.passed for verdict in result.verdicts] == [True, True]
    assert all(verdict.ratio.ratio > 1.5 for verdict in result.verdicts)
    assert result.verdict[0].startswith("Augment at share=0.1 ratio=4, k = 1: users by ring, ratio 4 gives")


def test_a_generator_that_knows_nothing_more_fails(tmp_path: Path) -> None:
    result = report(tmp_path, plan_of(("markov",), ("sequential-rules", "popularity")), ring_frame())
    assert not any(verdict.passed for verdict in result.verdicts)
    assert result.verdict[0].startswith("Do not augment at any share, ratio or kind that was tried: 2 of 2")


def test_a_gain_by_information_is_told_apart_from_a_gain_by_synthesis(tmp_path: Path) -> None:
    """Titles of items in a row share a word: the text generator helps those who cannot read, and content-kNN reads."""
    titles = [f"word{item} word{(item + 1) % ITEMS}" for item in range(ITEMS)]
    entries = [CatalogueEntry(item_id=f"i{item:02}", title=title, at=0) for item, title in enumerate(titles)]
    members = ("item-knn", "popularity", "content-knn")
    catalogue = ItemFeatures.from_items(entries, 0)
    plan = plan_of(("text",), members, shares=(0.02,))
    result = report(tmp_path, plan, ring_frame(300), catalogue=catalogue)
    without = {verdict.k: verdict for verdict in result.figures["without text"]}
    assert without[1].ratio.low > 1.05, "synthesis brings the information of titles to item-kNN"
    assert not any(verdict.passed for verdict in result.verdicts), "which content-kNN reads itself"
    assert "real recommenders that read texts, to those that do not" in result.verdict[-1]


@pytest.fixture(scope="module")
def shop() -> YoungShop:
    opponent = Opponent(ring_frame(), plan_of(("markov",), ("sequential-rules", "popularity")).opponent)
    return YoungShop(opponent, opponent.folds.fold(0), 0.5, 10)


def test_a_shop_has_its_share_of_the_users_and_the_whole_catalogue(shop: YoungShop) -> None:
    users = shop.fold.tuning.training["user_id"].nunique()
    assert shop.real.user_count == round(0.5 * users)
    assert len(shop.real.vocabulary) == ITEMS
    counts = np.bincount(shop.real.items, minlength=ITEMS)
    assert (np.diff(counts) <= 0).all()


def test_added_events_follow_the_real_ones_of_their_user(shop: YoungShop) -> None:
    user = 3
    added = AddedEvents(
        np.array([user, shop.real.user_count]), np.array([7, 8], np.int32), np.array([8, 8], np.int32), np.array([1, 2])
    )
    both = combined(shop.real, added)
    assert both.items[both.users == user].tolist() == [*shop.real.items[shop.real.users == user].tolist(), 7]
    assert both.items[both.users == both.user_count - 1].tolist() == [8]
    assert both.user_count == shop.real.user_count + 1


@pytest.mark.parametrize("events", [1, 50, 700])
def test_every_kind_and_control_adds_as_many_events_as_asked(shop: YoungShop, events: int) -> None:
    markov, rng = Markov(), np.random.default_rng(0)
    markov.fit(shop.real)
    for added in (
        whole_users(markov, shop.real, events, rng),
        lengthened(markov, shop.real, events, rng),
        tail_items(markov, shop.real, events, rng),
        duplicated(shop.real, events, rng),
    ):
        assert len(added) == events
        assert added.items.max() < ITEMS


def test_lengthened_histories_keep_their_users_and_tail_items_come_first(shop: YoungShop) -> None:
    markov, rng = Markov(), np.random.default_rng(0)
    markov.fit(shop.real)
    assert lengthened(markov, shop.real, 60, rng).users.max() < shop.real.user_count
    added = tail_items(markov, shop.real, 64, rng)
    assert added.users.min() == shop.real.user_count
    firsts = added.items[np.unique(added.users, return_index=True)[1]]
    assert (firsts >= round(0.2 * ITEMS)).all()


def test_shuffled_events_keep_items_and_lengths_but_not_who_has_what(shop: YoungShop) -> None:
    added = duplicated(shop.real, 400, np.random.default_rng(0))
    control = shuffled(added, np.random.default_rng(1))
    assert sorted(control.items.tolist()) == sorted(added.items.tolist())
    assert control.users.tolist() == added.users.tolist()
    assert control.items.tolist() != added.items.tolist()


def test_popularity_counts_real_events_alone(shop: YoungShop) -> None:
    shop.strongest()
    arm = AugmentationArm("users", "markov", 4.0)
    members = shop.fitted_with(shop.added(arm))
    for name in ("sequential-rules", "popularity"):
        assert members[name].popularity.tolist() == shop.members[name].popularity.tolist()  # type: ignore[attr-defined] # both have it
    assert members["sequential-rules"].neighbors.tolist() != shop.members["sequential-rules"].neighbors.tolist()  # type: ignore[attr-defined] # both have it


def test_arms_are_the_same_in_every_run(shop: YoungShop) -> None:
    arm = AugmentationArm("users", "markov", 1.0)
    assert shop.added(arm).items.tolist() == shop.added(arm).items.tolist()


def test_unknown_kinds_and_generators_that_cannot_continue_are_refused() -> None:
    with pytest.raises(SynthesisError, match="nothing of kind 'sessions' can be added; there are users, lengthened"):
        check_kinds(["sessions"], [Markov])
    with pytest.raises(SynthesisError, match="article-gan cannot continue a history, which 'tail' needs"):
        check_kinds(["users", "tail"], [ArticleGAN])
