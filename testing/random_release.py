"""Releases with random weights: as large and as slow as trained ones, without training."""

import time
from pathlib import Path

import msgspec
import numpy as np

from models.arrays import Float32
from models.data.vocabulary import Vocabulary
from models.recommenders.base import Recommender, TuningContext
from models.recommenders.blend import BUCKETS, Blend
from models.recommenders.content_knn import ContentKNN
from models.recommenders.ease import EASE
from models.recommenders.first_events import FirstEvents
from models.recommenders.item_item import ItemItem
from models.recommenders.item_knn import ItemKNN
from models.recommenders.personal import Personal
from models.recommenders.popularity import Popularity
from models.recommenders.registry import DEFAULT_MEMBERS, create, half_life_of
from models.recommenders.rp3beta import RP3Beta
from models.recommenders.sequential_rules import SequentialRules
from models.recommenders.svd_filter import SVDFilter
from models.recommenders.user_knn import UserKNN
from models.releases import release_store
from models.releases.manifest import Manifest, new_id

ITEM_ITEM: dict[str, type[ItemItem]] = {
    "item-knn": ItemKNN,
    "ease": EASE,
    "sequential-rules": SequentialRules,
    "rp3beta": RP3Beta,
    "content-knn": ContentKNN,
}
COUNTS: dict[str, type[Popularity | Personal]] = {
    "popularity": Popularity,
    "first-events": FirstEvents,
    "personal": Personal,
}
USERS = 100_000


def write_random_release(root: Path, items: int, recommender: str, rng: np.random.Generator) -> str:
    """A promoted release with random weights in the sizes of a real one, so that it takes the time of one. Its id."""
    item_ids = [f"i{number}" for number in range(items)]
    vocabulary = Vocabulary.from_items(item_ids)
    model = random_recommender(recommender, vocabulary, rng)
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


def random_recommender(name: str, vocabulary: Vocabulary, rng: np.random.Generator) -> Recommender:
    """A recommender with random weights, in the sizes of its default parameters."""
    if name == "blend":
        names = DEFAULT_MEMBERS
        members = [random_recommender(member, vocabulary, rng) for member in names]
        return Blend(members, np.full((BUCKETS, len(members)), 1 / len(members)))
    if half_life_of(name) is not None:
        live = create(name, {}, TuningContext())
        live.vocabulary = vocabulary
        return live
    if name in ITEM_ITEM:
        return _random_item_item(ITEM_ITEM[name](), vocabulary, rng)
    popularity = (1 / np.arange(1, len(vocabulary) + 1)).astype(np.float32)
    if name in COUNTS:
        counts = COUNTS[name]()
        counts.vocabulary, counts.popularity = vocabulary, popularity
        return counts
    if name == "svd-filter":
        return _random_svd_filter(vocabulary, popularity, rng)
    if name == "user-knn":
        return _random_user_knn(vocabulary, popularity, rng)
    from models.recommenders.neural.recommender import Network, Neural, Params

    model = Neural(msgspec.convert({"encoder": name}, Params))
    model.vocabulary, model.popularity = vocabulary, popularity
    model.network = Network(np.zeros(len(vocabulary), np.int32), model.params)
    return model


def _random_svd_filter(vocabulary: Vocabulary, popularity: Float32, rng: np.random.Generator) -> SVDFilter:
    model = SVDFilter()
    model.vocabulary = vocabulary
    shape = (min(len(vocabulary), model.params.most), model.params.rank)
    inputs, outputs = (rng.normal(0, shape[1] ** -0.5, shape).astype(np.float32) for _ in range(2))
    model.restore({"popularity": popularity, "inputs": inputs, "outputs": outputs})
    return model


def _random_user_knn(vocabulary: Vocabulary, popularity: Float32, rng: np.random.Generator) -> UserKNN:
    """Every item has as many users as are kept, and every user as many items: the most that a look-up can cost."""
    model = UserKNN()
    model.vocabulary = vocabulary
    items, users = len(vocabulary), USERS
    per_item, per_user = model.params.users_per_item, model.params.events
    model.restore(
        {
            "popularity": popularity,
            "counts": np.full(items, per_item, np.float32),
            "item_starts": np.arange(items + 1, dtype=np.int64) * per_item,
            "item_users": rng.integers(0, users, items * per_item, np.int32),
            "user_starts": np.arange(users + 1, dtype=np.int64) * per_user,
            "user_items": rng.integers(0, items, users * per_user, np.int32),
        }
    )
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
