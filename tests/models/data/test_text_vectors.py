"""Vectors of texts, and items that are known from a catalogue alone."""

import msgspec
import numpy as np
import pandas as pd
import pytest

from features.catalogue import CatalogueEntry
from models.data import text_vectors
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.vocabulary import Vocabulary
from models.recommenders.cold_items import ColdItemInitializer

TITLES = ["red wine from France", "white wine from Spain", "red wine, Spain", "toy car", "toy train", "", "toy cars"]


def test_texts_that_share_words_are_near() -> None:
    vectors = text_vectors.vectors(TITLES, 4)
    assert vectors.shape == (7, 4)
    assert vectors.dtype == np.float32
    near = vectors @ vectors.T
    assert near[:3, :3].min() > 0.2 > near[:3, [3, 4, 6]].max()
    assert near[3, 6] > near[3, 4] > near[3, :3].max()  # a plural shares letters
    np.testing.assert_allclose(np.diag(near)[[0, 1, 2, 3, 4, 6]], 1, atol=1e-5)
    assert not vectors[5].any()
    np.testing.assert_array_equal(vectors, text_vectors.vectors(TITLES, 4))


@pytest.mark.parametrize("texts", [[], [""], ["one"], ["one", "one"], ["a b", "a b", ""]])
def test_few_texts_are_no_trouble(texts: list[str]) -> None:
    vectors = text_vectors.vectors(texts, 3)
    assert vectors.shape == (len(texts), 3)
    assert np.isfinite(vectors).all()
    assert [bool(row.any()) for row in vectors] == [bool(text) for text in texts]


def test_a_catalogue_adds_items_behind_those_with_events() -> None:
    rows = [("u", "a", "view", None, 1), ("u", "b", "view", 3.5, 2), ("v", "b", "view", None, 3)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "value", "at"])
    texts = np.arange(6, dtype=np.float32).reshape(3, 2)
    log = Interactions.from_frame(frame, item_features=ItemFeatures(["c", "a", "d"], {"c": "x", "b": "y"}, texts))
    assert log.vocabulary.item_ids == ["b", "a", "c", "d"]
    assert log.warm_items == 2
    assert log.categories.tolist() == [2, 0, 1, 0]
    assert log.texts is not None
    assert log.texts.tolist() == [[0, 0], [2, 3], [0, 1], [4, 5]]
    assert log.values is not None
    np.testing.assert_array_equal(log.values, [np.nan, 3.5, np.nan])
    again = Interactions.from_frame(frame, log.vocabulary)
    assert again.warm_items == 2
    with pytest.raises(ValueError, match="1 rows for 2 items"):
        ItemFeatures(["a", "b"], texts=np.zeros((1, 2), np.float32))


def test_a_rare_item_of_the_catalogue_is_one_without_events() -> None:
    """Its few events must not be learned: the networks know no item behind the trained ones as a target."""
    items = ["a", "b", "rare", "a", "b", "a"]
    frame = pd.DataFrame({"user_id": list("uuuvvv"), "item_id": items, "kind": "view", "at": range(6)})
    log = Interactions.from_frame(frame, min_count=2, item_features=ItemFeatures(["rare", "b"]))
    assert log.vocabulary.item_ids[2:] == ["rare"]
    assert log.warm_items == 2
    assert log.items.max() == 1
    assert len(log) == 5


def test_a_catalogue_is_read_from_records() -> None:
    records = [
        '{"type":"item","item_id":"b","at":1700000000000,"title":"toy car","category":"toys"}',
        '{"type":"item","item_id":"a","at":1700000000000}',
        '{"type":"item","item_id":"c","at":1700000000000,"available":false}',
    ]
    features = ItemFeatures.from_frame(
        pd.DataFrame({"id": ["b", "a", "c"], "label": ["toys", None, None], "record": records})
    )
    assert features.item_ids == ["a", "b"]
    assert features.categories == {"b": "toys"}
    assert features.texts is not None
    assert [bool(row.any()) for row in features.texts] == [False, True]
    bare = ItemFeatures.from_frame(pd.DataFrame({"id": ["a"], "label": [None], "record": records[1:2]}))
    assert bare.texts is None
    assert bare.extend_vocabulary(Vocabulary.from_items(["x", "a"]), 10).item_ids == ["x", "a"]


def test_new_items_borrow_from_those_like_them() -> None:
    own = np.array([[1, 0], [3, 0], [0, 8], [0, 0], [0, 0], [0, 0]], np.float32)
    codes = np.array([1, 1, 2, 1, 2, 3], np.int32)
    vectors = ColdItemInitializer.fit(3, codes, None).initialize(own[:3])
    np.testing.assert_allclose(vectors, [[2, 0], [0, 8], [4 / 3, 8 / 3]], rtol=1e-6)
    texts = np.array([[1, 0], [0, 1], [0, 1], [1, 0], [0, 1], [0, 0]], np.float32)
    vectors = ColdItemInitializer.fit(3, codes, texts, neighbors=2).initialize(own[:3])
    np.testing.assert_allclose(vectors, [[1, 0], [0, 8], [4 / 3, 8 / 3]], rtol=1e-6)  # near in text, same category


def test_a_catalogue_is_known_by_its_titles_not_by_the_bits_of_their_vectors() -> None:
    items = [CatalogueEntry(f"i{number}", 1, title=f"Title {number}") for number in range(4)]
    features = ItemFeatures.from_items(items)
    assert features.texts is not None
    elsewhere = msgspec.structs.replace(features, texts=features.texts + np.float32(1e-6))  # other last bits
    assert elsewhere.fingerprint() == features.fingerprint()
    renamed = ItemFeatures.from_items([msgspec.structs.replace(items[0], title="Another"), *items[1:]])
    assert renamed.fingerprint() != features.fingerprint()
