"""Releases with random weights: as large and as slow as trained ones, without training."""

import time
from pathlib import Path

import msgspec
import numpy as np

from models.data.vocabulary import Vocabulary
from models.recommenders.base import Recommender
from models.recommenders.blend import BUCKETS, Blend
from models.recommenders.ease import EASE
from models.recommenders.item_item import ItemItem
from models.recommenders.item_knn import ItemKNN
from models.recommenders.personal import Personal
from models.recommenders.sequential_rules import SequentialRules
from models.releases import release_store
from models.releases.manifest import Manifest, new_id

ITEM_ITEM: dict[str, type[ItemItem]] = {"item-knn": ItemKNN, "ease": EASE, "sequential-rules": SequentialRules}


def write_random_release(root: Path, items: int, recommender: str, rng: np.random.Generator) -> str:
    """A promoted release with random weights in the sizes of a real one, so that it takes the time of one. Its id."""
    item_ids = [f"i{number}" for number in range(items)]
    vocabulary = Vocabulary.from_items(item_ids)
    model = _random_recommender(recommender, vocabulary, rng)
    item_knn = _random_item_item(ItemKNN(), vocabulary, rng)
    manifest = Manifest(
        id=new_id(),
        domain="shop",
        recommender=recommender,
        created_at=int(time.time() * 1000),
        cutoff_at=0,
        items=items,
        events=0,
        users=0,
        files={},
        params=model.describe(),
    )

    def write(folder: Path) -> list[str]:
        return list({*model.save(folder, release_store.prefix_of(recommender)), *item_knn.save(folder)})

    release_store.save(root, manifest, item_ids, write)
    release_store.promote(root, "shop", manifest.id)
    return manifest.id


def _random_recommender(name: str, vocabulary: Vocabulary, rng: np.random.Generator) -> Recommender:
    if name == "blend":
        names = ("personal", *ITEM_ITEM, "transformer")
        members = [_random_recommender(member, vocabulary, rng) for member in names]
        return Blend(members, np.full((BUCKETS, len(members)), 1 / len(members)))
    if name in ITEM_ITEM:
        return _random_item_item(ITEM_ITEM[name](), vocabulary, rng)
    popularity = (1 / np.arange(1, len(vocabulary) + 1)).astype(np.float32)
    if name == "personal":
        personal = Personal()
        personal.vocabulary, personal.popularity = vocabulary, popularity
        return personal
    from models.recommenders.neural.recommender import Network, Neural, Params

    model = Neural(msgspec.convert({"encoder": name}, Params))
    model.vocabulary, model.popularity = vocabulary, popularity
    model.network = Network(np.zeros(len(vocabulary), np.int32), model.params)
    return model


def _random_item_item(model: ItemItem, vocabulary: Vocabulary, rng: np.random.Generator) -> ItemItem:
    shape = (len(vocabulary), model.params.neighbors)
    model.vocabulary = vocabulary
    model.popularity = (1 / np.arange(1, len(vocabulary) + 1)).astype(np.float32)
    model.neighbors = rng.integers(0, len(vocabulary), shape, np.int32)
    model.similarities = np.sort(rng.random(shape, np.float32))[:, ::-1].copy()
    if model.name == "ease":  # some of its weights are negative
        model.similarities[:, ::4] *= -1
    return model
