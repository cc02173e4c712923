"""Content-kNN: similarities from titles and categories, by hand; nothing without either."""

import numpy as np
import pandas as pd
import pytest

from features.catalogue import CatalogueEntry
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.text_vectors import tfidf
from models.recommenders import registry
from models.recommenders.base import TuningContext
from models.recommenders.content_knn import ContentKNN

TITLES = {"a": "red paper lantern", "b": "blue paper lantern", "c": "steel kettle", "d": "red kettle", "e": ""}
CATEGORIES = {"a": "light", "b": "light", "c": "kitchen", "d": "kitchen"}


def fitted(*, titles: bool = True, categories: bool = True, **params: float) -> ContentKNN:
    rows = [("u1", "a"), ("u1", "c"), ("u2", "c"), ("u2", "d"), ("u3", "c"), ("u3", "e"), ("u3", "b")]
    frame = pd.DataFrame(
        [(*row, "view", at) for at, row in enumerate(rows)], columns=["user_id", "item_id", "kind", "at"]
    )
    entries = [
        CatalogueEntry(
            item_id=item,
            at=0,
            title=TITLES[item] if titles else None,
            category=CATEGORIES.get(item) if categories else None,
        )
        for item in TITLES
    ]
    recommender = ContentKNN(ContentKNN.Params(**{"neighbors": 4, **params}))  # type: ignore[arg-type]  # of their own types
    recommender.fit(Interactions.from_frame(frame, item_features=ItemFeatures.from_items(entries)))
    return recommender


def similarity(recommender: ContentKNN, item: str, other: str) -> float:
    index = recommender.vocabulary.index
    near = recommender.neighbors[index[item]] == index[other]
    return float(recommender.similarities[index[item]][near].sum())


def test_similarities_are_cosines_and_categories_times_a_power_of_popularity() -> None:
    recommender = fitted(category_share=0.3, power=0.5)
    vectors = tfidf([TITLES[item] for item in recommender.vocabulary.item_ids]).toarray()
    rows = dict(zip(recommender.vocabulary.item_ids, vectors, strict=True))
    assert similarity(recommender, "a", "b") == pytest.approx((0.7 * rows["a"] @ rows["b"] + 0.3) * 2**0.5, rel=1e-5)
    assert similarity(recommender, "d", "c") == pytest.approx((0.7 * rows["c"] @ rows["d"] + 0.3) * 4**0.5, rel=1e-5)
    assert similarity(recommender, "a", "d") == pytest.approx(0.7 * rows["a"] @ rows["d"] * 2**0.5, rel=1e-5)
    assert not (recommender.neighbors[recommender.vocabulary.index["e"]] >= 0).any()


def test_the_category_alone_relates_items_without_titles() -> None:
    recommender = fitted(titles=False, power=0.0)
    assert similarity(recommender, "a", "b") == pytest.approx(1.0)
    assert similarity(recommender, "a", "c") == 0


def test_without_titles_and_categories_nothing_is_similar() -> None:
    assert (fitted(titles=False, categories=False).neighbors == -1).all()


def test_it_is_left_out_where_items_have_no_text() -> None:
    assert registry.spec("content-knn").useful(TuningContext(item_text=True))
    assert not registry.spec("content-knn").useful(TuningContext())
    assert registry.spec("item-knn").useful(TuningContext())
    assert not registry.spec("personal").useful(TuningContext())


def test_what_too_many_titles_share_is_left_out() -> None:
    all_alike = tfidf(["same one", "same two", "same three"], max_texts=2)
    assert np.abs((all_alike @ all_alike.T).toarray() - np.eye(3)).max() < 0.2
