"""What events add to a score: the sum is the score, and without an event the score falls by its contribution."""

import numpy as np
import pandas as pd
import pytest

from features.activity import History
from models.data.batch import batch_histories
from models.data.interactions import Interactions
from models.recommenders.base import Recommender
from models.recommenders.blend import BUCKETS, Blend
from models.recommenders.ease import EASE
from models.recommenders.ials import IALS
from models.recommenders.item_knn import ItemKNN
from models.recommenders.personal import Personal
from models.recommenders.popularity import Popularity
from models.recommenders.sequential_rules import SequentialRules
from models.recommenders.svd_filter import SVDFilter
from models.recommenders.user_knn import UserKNN
from stream.events import KIND_CODES

VIEW, BUY = KIND_CODES["view"], KIND_CODES["purchase"]


def log() -> Interactions:
    rng = np.random.default_rng(3)
    rows = [
        (f"u{user}", f"i{item}", "purchase", 1_700_000_000_000 + 1000 * user)
        for user in range(80)
        for item in rng.choice(12, 4, replace=False)
    ]
    return Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]))


def fitted(recommender: Recommender) -> Recommender:
    recommender.fit(log())
    return recommender


HISTORY = History(["i1", "i5", "i1", "i7"], [VIEW, BUY, BUY, VIEW], [1, 2, 3, 4], [None] * 4)


@pytest.mark.parametrize(
    "recommender",
    [
        ItemKNN(ItemKNN.Params(own=0.3)),
        SequentialRules(),
        EASE(EASE.Params(reg=5.0)),
        Personal(),
        IALS(IALS.Params(factors=4, iterations=3)),
        SVDFilter(SVDFilter.Params(rank=3)),
        UserKNN(UserKNN.Params(neighbors=20, item_power=0.2)),
    ],
    ids=lambda recommender: recommender.name,
)
def test_events_add_up_to_the_score_beyond_popularity(recommender: Recommender) -> None:
    fitted(recommender)
    batch = batch_histories([HISTORY], recommender.vocabulary, 50)
    nothing = batch_histories([History()], recommender.vocabulary, 50)
    places = np.arange(len(recommender.vocabulary))
    added = recommender.contributions(batch, places)
    assert added is not None
    assert added.sum(axis=1) == pytest.approx(recommender.score(batch)[0] - recommender.score(nothing)[0], abs=1e-4)
    assert not added[:, :-4].any()


def test_a_blend_says_what_those_members_say_that_can() -> None:
    members = [fitted(member) for member in (ItemKNN(), Personal(), Popularity())]
    weights = np.tile([0.5, 0.2, 0.3], (BUCKETS, 1))
    blend = Blend(members, weights)
    batch = batch_histories([HISTORY], blend.vocabulary, 50)
    places = np.arange(len(blend.vocabulary))
    added = blend.contributions(batch, places)
    assert added is not None
    expected = np.zeros(len(places))
    for member, weight in zip(members[:2], (0.5, 0.2), strict=True):
        ties = member.popularity * (1e-6 / member.popularity.max())
        score = member.score(batch)[0]
        expected += weight * (score - ties) / score.sum()
    assert added.sum(axis=1) == pytest.approx(expected, abs=1e-6)
    assert members[2].contributions(batch, places) is None
