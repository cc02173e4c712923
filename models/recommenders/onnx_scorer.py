"""Recommenders as a release holds them: arrays and ONNX encoders, without Keras, `implicit` or anything to fit with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.arrays import Float32
from models.data.batch import Batch, encoder_inputs
from models.data.interactions import Interactions
from models.data.profiles import ProfileSchema
from models.data.vocabulary import Vocabulary
from models.recommenders.base import Recommender, add_repeats
from models.recommenders.blend import Blend, members
from models.recommenders.ials import IALS
from models.recommenders.item_item import EASE, ItemItem, ItemKNN, SequentialRules
from models.recommenders.item_product import Product, softmax
from models.recommenders.popularity import Personal, Popularity

ITEM_ITEM: Final[dict[str, type[ItemItem]]] = {"item-knn": ItemKNN, "ease": EASE, "sequential-rules": SequentialRules}
ENCODED: Final = ("dnn", "cnn", "rnn", "transformer")


class Encoded:
    """A neural recommender: `encoder` is an ONNX Runtime session over items, kinds and gaps int32 [batch, length].

    Where it has inputs for them it is also given the profile and the moment (`sequences.inputs_of`).
    """

    def __init__(self, name: str, params: Mapping[str, Any], vocabulary: Vocabulary, arrays: Mapping[str, Any]) -> None:
        self.name = name
        self.params = dict(params)
        self.vocabulary = vocabulary
        self.popularity: Float32 = arrays["popularity"]
        self.repeats: Float32 = arrays["repeats"]
        self.length = int(params["length"])
        self.gains = bool(params.get("repeats"))
        self.encoder = arrays["encoder"]
        self.fields = ProfileSchema.from_json(params.get("fields", ()))
        if self.repeats.shape != (self.length,):
            raise ValueError(f"repeats has {self.repeats.shape} for length {self.length}")
        self._inputs = {one.name for one in self.encoder.get_inputs()}
        self._popular: Float32 = np.log1p(self.popularity)
        self.by_value = params.get("loss") == "mse"
        self.worths: Float32 | None = arrays.get("worths")
        # by value an item's level comes on top, so the best by the product alone are not the best
        self._product = Product(arrays["worths"][:, :-1], rough=0) if self.by_value else Product(arrays["embeddings"])

    def fit(self, log: Interactions) -> None:
        raise NotImplementedError(f"a served {self.name} is not fitted; train a release")

    def encode(self, batch: Batch) -> Float32:
        """float32 [batch, embedding_size]."""
        batch = batch.newest(self.length)
        inputs = encoder_inputs(batch, self.fields, context="time_features" in self._inputs)
        encoded: Float32 = self.encoder.run(None, {name: one for name, one in inputs.items() if name in self._inputs})[
            0
        ]
        return encoded

    def score(self, batch: Batch) -> Float32:
        batch = batch.newest(self.length)
        scores: Float32 = self.values(batch) if self.by_value else self._product(self.encode(batch))
        if self.gains:
            add_repeats(scores, batch.items, self.repeats)
        scores[~batch.has_history] = self._popular
        return scores

    def values(self, batch: Batch) -> Float32:
        """float32 [batch, items]: the value that the next event would have (stars, seconds, a price).

        Raises:
            ValueError: the release learned no values.
        """
        if self.worths is None:
            raise ValueError(f"{self.name} learned no values; train with values above 0, or with loss mse")
        encoded = self.encode(batch)
        valued: Float32 = self._product(encoded) if self.by_value else encoded @ self.worths[:, :-1].T
        valued += self.worths[:, -1]
        return valued

    def probabilities(self, batch: Batch) -> Float32:
        return softmax(self.score(batch))

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        used = np.flatnonzero(weights)
        shares = self.probabilities(batch if len(used) == len(batch) else batch.take(used))
        shares *= weights[used, None]
        for place, row in enumerate(used):
            out[row] += shares[place]

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        raise NotImplementedError(f"a served {self.name} is saved already")

    def describe(self) -> dict[str, Any]:
        return self.params


def valued(recommender: Recommender) -> Encoded | None:
    """The recommender, or the first member of a blend, that learned what events are worth; None where none did."""
    return next((one for one in members(recommender) if isinstance(one, Encoded) and one.worths is not None), None)


def served(
    params: Mapping[str, Any], vocabulary: Vocabulary, arrays: Mapping[str, Any], prefix: str = ""
) -> Recommender:
    """The recommender that `params` (its name under `recommender`, and what `describe` gave) and `arrays` make.

    `arrays` are named as files without their endings: `<prefix>embeddings`; an ONNX session is `<prefix>encoder`.

    Raises:
        KeyError: an array or a parameter is missing, or the recommender is of no kind that this version knows.
        ValueError: arrays do not fit each other.
    """
    name = str(params["recommender"])
    if name == "blend":
        parts = [served(one, vocabulary, arrays, f"{prefix}{one['recommender']}.") for one in params["members"]]
        return Blend(parts, np.array(params["weights"], np.float64))
    own = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
    if name in ENCODED:
        return Encoded(name, params, vocabulary, own)
    if name in ITEM_ITEM:
        return _item_item(name, params, vocabulary, own)
    known: dict[str, type[Any]] = {"popularity": Popularity, "personal": Personal, "ials": IALS}
    made = known[name](**{key: params[key] for key in known[name]().describe()})
    made.vocabulary, made.popularity = vocabulary, own["popularity"]
    if name == "ials":
        made.item_factors = own["factors"]
    recommender: Recommender = made
    return recommender


def _item_item(name: str, params: Mapping[str, Any], vocabulary: Vocabulary, own: Mapping[str, Any]) -> ItemItem:
    kind = ITEM_ITEM[name]
    made = kind(**{key: params[key] for key in kind().describe()})
    made.vocabulary, made.popularity = vocabulary, own["popularity"]
    made.near, made.amounts = own["neighbours"], own["similarities"]
    return made
