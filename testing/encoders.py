"""Small encoders that train in seconds, and releases of them."""

from pathlib import Path
from typing import Any

from models.data.interactions import Interactions
from models.recommenders.item_knn import ItemKNN
from models.recommenders.neural.recommender import Neural, Params
from models.releases import release_store
from models.releases.manifest import Manifest, new_id
from models.releases.release import Release
from testing.interactions import clubs, tastes

SMALL: dict[str, Any] = {
    "embedding_size": 16,
    "blocks": 1,
    "heads": 1,
    "length": 8,
    "dropout": 0.0,
    "learning_rate": 1e-2,
    "compiled": False,
    "adversarial": 0.0,
}


def small_encoder(name: str, epochs: int = 40, **more: Any) -> Neural:
    """An untrained encoder of a family; `more` are further hyperparameters."""
    return Neural(Params(**{**SMALL, "encoder": name, "epochs": epochs, **more}))


def fit_on_tastes(by: str, **more: Any) -> Neural:
    """A dense encoder trained on the interactions of `tastes(by)`."""
    frame, people = tastes(by)
    model = small_encoder("dnn", 60, **more)
    model.fit(Interactions.from_frame(frame, profiles=people))
    return model


def save_and_load(model: Neural, root: Path) -> Release:
    """A release of an encoder, saved below `root` and loaded again."""
    item_knn = ItemKNN()
    item_knn.fit(Interactions.from_frame(clubs(), model.vocabulary))

    def write(folder: Path) -> list[str]:
        return list({*model.save(folder, release_store.prefix_of(model.name)), *item_knn.save(folder)})

    manifest = Manifest(new_id(), "shop", model.name, 0, 0, 0, 0, 0, {}, model.describe(), {}, "none")
    saved = release_store.save(root, manifest, model.vocabulary.item_ids, write)
    return release_store.load(root / "shop" / saved.id)
