"""Every recommender of the registry passes the contract suite; so does a blend, and a toy that a test registers."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import msgspec
import numpy as np
import pandas as pd
import pytest

from models.arrays import AnyArray, Float32
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.errors import TrainingError
from models.recommenders import registry
from models.recommenders.base import ArrayRecommender, Recommender, TuningContext
from models.recommenders.blend import BUCKETS, Blend
from models.recommenders.item_knn import ItemKNN
from models.recommenders.sequential_rules import SequentialRules
from testing.interactions import clubs, history
from testing.recommender_contract import RecommenderContract, batch_of

SMALL: dict[str, Any] = {
    "embedding_size": 16,
    "blocks": 1,
    "heads": 1,
    "length": 8,
    "dropout": 0.0,
    "epochs": 40,
    "learning_rate": 1e-2,
    "compiled": False,
    "adversarial": 0.0,
}


class TestPopularity(RecommenderContract):
    name = "popularity"
    knows_neighbors = False


class TestFirstEvents(RecommenderContract):
    name = "first-events"
    knows_neighbors = False


class TestPersonal(RecommenderContract):
    name = "personal"
    knows_neighbors = False


class TestItemKNN(RecommenderContract):
    name = "item-knn"


class TestSequentialRules(RecommenderContract):
    name = "sequential-rules"
    knows_order = True


class TestRP3Beta(RecommenderContract):
    name = "rp3beta"


class TestEASE(RecommenderContract):
    name = "ease"


class TestIALS(RecommenderContract):
    name = "ials"
    params: ClassVar[dict[str, Any]] = {"factors": 8}


class TestSVDFilter(RecommenderContract):
    name = "svd-filter"


class TestContentKNN(RecommenderContract):
    name = "content-knn"
    knows_neighbors = False  # the suite's items have no titles


class TestUserKNN(RecommenderContract):
    name = "user-knn"


class TestRequestTimePopularity(RecommenderContract):
    name = "live-popularity"
    knows_neighbors = False


class TestFresh(RecommenderContract):
    name = "fresh"
    knows_order = True


class TestBlend(RecommenderContract):
    name = "blend"

    def build(self) -> Recommender:
        return Blend([ItemKNN(), SequentialRules()], np.full((BUCKETS, 2), 0.5))


class NeuralContract(RecommenderContract):
    params: ClassVar[dict[str, Any]] = SMALL
    knows_order = True
    scores_cold_items = False

    def test_an_item_is_reached_through_its_category(self) -> None:
        """Items 12 and 13 are seen once; with categories they are nearer to the club of their own category."""
        frame = clubs()
        rare = [("y", "i12", "view", None, 10_000), ("z", "i13", "view", None, 10_001)]
        whole = pd.concat([frame, pd.DataFrame(rare, columns=frame.columns)])
        categories = {f"i{n}": "left" if n < 6 or n == 12 else "right" for n in range(14)}
        recommender = self.build()
        recommender.fit(Interactions.from_frame(whole, categories=categories))
        batch = batch_of(recommender, history("i0", "i1", "i2"), history("i9", "i7", "i10"))
        scores = recommender.score(batch)
        left, right = recommender.vocabulary.index["i12"], recommender.vocabulary.index["i13"]
        assert scores[0, left] > scores[0, right]
        assert scores[1, right] > scores[1, left]


class TestDNN(NeuralContract):
    name = "dnn"
    repeats = True


class TestCNN(NeuralContract):
    name = "cnn"


class TestRNN(NeuralContract):
    name = "rnn"


class TestTransformer(NeuralContract):
    name = "transformer"
    repeats = True


class Toy(ArrayRecommender):
    """A recommender of its own: counts of events, the history does not matter."""

    name = "toy"

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`power` of the counts."""

        power: float = 1.0

    def __init__(self, params: Params | None = None) -> None:
        self.params = params or self.Params()

    def fit(self, interactions: Interactions) -> None:
        self.vocabulary = interactions.vocabulary
        counts = np.bincount(interactions.items, minlength=len(self.vocabulary))
        self.counts: Float32 = (counts**self.params.power).astype(np.float32)

    def score(self, batch: Batch) -> Float32:
        return np.tile(self.counts, (len(batch), 1))

    def arrays(self) -> dict[str, AnyArray]:
        return {"popularity": self.counts}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self.counts = arrays["popularity"]


class TestToy(RecommenderContract):
    """The class above, one line of the registry and these three lines are all that a new recommender takes."""

    name = "toy"
    params: ClassVar[dict[str, Any]] = {"power": 0.5}
    knows_neighbors = False

    @pytest.fixture(scope="class", autouse=True)
    def registered(self) -> Iterator[None]:
        registry.REGISTRY["toy"] = f"{__name__}:Toy"
        yield
        del registry.REGISTRY["toy"]


@pytest.mark.parametrize(
    ("params", "message"),
    [({"neighbours": 5}, "item-knn has no parameter 'neighbours'"), ({"neighbors": 0}, "neighbors")],
)
def test_a_parameter_that_does_not_exist_or_fit_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        registry.create("item-knn", params, TuningContext())


def test_every_recommender_of_the_registry_has_its_contract_here() -> None:
    tested = {
        contract.name
        for contract in globals().values()
        if hasattr(contract, "knows_order") and hasattr(contract, "name")
    }
    assert tested == {*registry.REGISTRY, "blend", "toy"}
