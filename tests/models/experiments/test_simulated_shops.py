"""Simulated shops, scale-free features, and a ranker that learns from other shops than the one it ranks."""

import numpy as np
import pytest

from models.data.batch import batch_histories
from models.data.profiles import RequestContext
from models.experiments.simulated_shops import ShopSettings, SimulatedShop, draw_settings, simulate
from models.experiments.simulated_shops_features import FEATURES, ShopFeatures
from models.experiments.simulated_shops_ranker import FeatureRanker, own_questions, simulated_questions, train
from models.synthesizers.histories import Histories

SETTINGS = ShopSettings(
    items=60, users=80, groups=4, days=100.0, zipf=0.8, loyalty=0.9, order=0.3, half_life=0.5, clarity=0.9
)


@pytest.fixture(scope="module")
def shop() -> SimulatedShop:
    return simulate(SETTINGS, np.random.default_rng(0))


def test_a_shop_is_what_its_settings_say(shop: SimulatedShop) -> None:
    log = shop.interactions
    assert log.user_count == 80
    assert len(log.vocabulary) == 60
    lengths = Histories.from_interactions(log).lengths
    assert lengths.min() >= 6
    assert lengths.max() <= 20
    for user in range(80):
        assert (np.diff(log.at[log.users == user]) >= 0).all()
    same = log.categories[log.items[1:]] == log.categories[log.items[:-1]]
    assert same.mean() > 0.5, "users are loyal to their group"
    assert draw_settings(np.random.default_rng(1)) != draw_settings(np.random.default_rng(2))


def test_features_do_not_depend_on_the_size_of_the_shop(shop: SimulatedShop) -> None:
    log = shop.interactions
    features, at = ShopFeatures(log, shop.alike), int(log.at.max())
    recent = [counts[0] for counts in features.recent(np.array([at]))]
    history = log.items[:3].astype(np.int64)
    table = features.of(history, at, recent)
    assert table.shape == (60, len(FEATURES))
    assert np.isfinite(table).all()
    popularity = table[:, FEATURES.index("popularity")]
    assert popularity.max() == pytest.approx(1.0)
    counts = np.bincount(log.items, minlength=60)
    assert popularity.argmax() in np.flatnonzero(counts == counts.max())
    match = table[:, FEATURES.index("category match")]
    own = log.categories[history[-1]]
    assert (match[log.categories == own] > 0).all()
    assert np.isfinite(features.of(history[:0], at, recent)).all()


def test_a_ranker_of_other_shops_beats_chance_and_popularity_in_one_it_never_saw(shop: SimulatedShop) -> None:
    network = train(simulated_questions(4, np.random.default_rng(3)), epochs=4)
    log = shop.interactions
    ranker = FeatureRanker("simulated", network, log.of_users(np.arange(50)))
    histories, ranks, popular = Histories.from_interactions(log), [], []
    counts = np.bincount(log.items[log.users < 50], minlength=60)
    for user in range(50, 80):
        history = histories.history(user, log.vocabulary)
        known = type(history)(history.items[:3], history.kinds[:3], history.times[:3], history.values[:3])
        batch = batch_histories([known], log.vocabulary, 50, [RequestContext(None, history.times[3])])
        scores, target = ranker.probabilities(batch)[0], log.vocabulary.index[history.items[3]]
        ranks.append((scores > scores[target]).sum())
        popular.append((counts > counts[target]).sum())
    assert np.mean(ranks) < np.mean(popular)
    assert np.mean(ranks) < 20


def test_own_questions_are_about_users_whose_events_are_not_counted(shop: SimulatedShop) -> None:
    questions = own_questions(shop.interactions, 30, np.random.default_rng(0))
    assert 10 < len(questions) <= 30
    assert questions.features.shape[2] == len(FEATURES)
