"""Synthetic users from texts: items without events come, by title and category; weights are those of the data."""

import numpy as np
import pandas as pd
import pytest

from features.catalogue import CatalogueEntry
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.synthesizers.conditions import Conditions
from models.synthesizers.text import BOUNDS, Text, deleted_weights, pseudo_users
from testing.interactions import history
from testing.synthesizer_contract import expected_of, labelled, sample


@pytest.fixture(scope="module")
def shop() -> Interactions:
    """Users stay with tea or with boats; each category has one item that nobody took."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        kind = ("tea", "boat")[user % 2]
        rows += [(f"u{user}", f"{kind}-{n}", "view", 1_000 * step + user) for step, n in enumerate(rng.permutation(6))]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).sort_values("at", kind="stable")
    names = [f"{kind}-{n}" for kind in ("tea", "boat") for n in (*range(6), "new")]
    words = {"tea": "green leaf tea", "boat": "wooden sailing boat"}
    items = [
        CatalogueEntry(item_id=name, at=0, category=name.split("-")[0], title=f"{words[name.split('-')[0]]} {number}")
        for number, name in enumerate(names)
    ]
    return Interactions.from_frame(frame, item_features=ItemFeatures.from_items(items))


@pytest.fixture(scope="module")
def fitted(shop: Interactions) -> Text:
    text = Text()
    text.fit(shop)
    return text


def test_an_item_without_events_comes_after_items_like_it(shop: Interactions, fitted: Text) -> None:
    assert shop.warm_items == 12
    after = [Conditions(first=history(f"{kind}-1")) for kind in ("tea", "boat")]
    own, other = expected_of(fitted, "tea-new", after)
    assert own > 3 * other
    drawn = sample(fitted, [Conditions(first=history("tea-1"), text="green tea", events=20)], 50)
    assert fitted.vocabulary.index["tea-new"] in set(drawn.items.tolist())


def test_after_an_item_without_events_come_items_like_it(fitted: Text) -> None:
    expected = fitted.expected([Conditions(first=history("boat-new"))])[0]
    boats = sum(expected[index] for name, index in fitted.vocabulary.index.items() if name.startswith("boat"))
    assert boats > 0.8


def test_weights_go_to_the_part_that_predicts() -> None:
    observed = np.array([[0.9, 0.8, 0.0, 0.0], [0.1, 0.1, 0.5, 0.4]])
    table = deleted_weights(observed, np.array([5, 5, 0, 0]), np.full(4, 100.0))
    assert table.shape == (len(BOUNDS) + 1, 2)
    assert table[5, 0] > 0.9
    assert table[0, 1] > 0.9


def test_each_word_bigram_and_category_is_a_pseudo_user() -> None:
    users = pseudo_users(labelled())
    assert {"left", "shoe", "left shoe", "category right"} <= set(users.names)
    row = users.matrix[users.names.index("left shoe")]
    assert row.nnz == 6
    np.testing.assert_allclose(users.matrix.multiply(users.matrix).sum(axis=1), 1.0, atol=1e-5)
