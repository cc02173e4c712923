"""Neural recommenders as a release stores them: arrays and an ONNX encoder, without Keras."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.arrays import Float32
from models.data.batch import Batch, encoder_inputs
from models.data.profiles import ProfileSchema
from models.data.vocabulary import Vocabulary
from models.recommenders.base import StoredRecommender, ValueModel, add_repeats
from models.recommenders.item_product import Product, softmax


class OnnxScorer(ValueModel):
    """A neural recommender: `encoder` is an ONNX Runtime session over items, kinds and gaps int32 [batch, length].

    Where it has inputs for them it is also given the profile and the moment (`encoder_inputs`).
    """

    is_neural = True

    def __init__(self, name: str, params: Mapping[str, Any], vocabulary: Vocabulary, arrays: Mapping[str, Any]) -> None:
        self.name = name
        self.params = dict(params)
        self.vocabulary = vocabulary
        self.popularity: Float32 = arrays["popularity"]
        self.repeats: Float32 = arrays["repeats"]
        self.length = int(params["length"])
        self.gains = bool(params.get("repeats"))
        self.start_token = bool(params.get("start_token"))
        self.encoder = arrays["encoder"]
        self.schema = ProfileSchema.from_json(params.get("fields", ()))
        if self.repeats.shape != (self.length,):
            raise ValueError(f"repeats has {self.repeats.shape} for length {self.length}")
        self._inputs = {port.name for port in self.encoder.get_inputs()}
        self._popular: Float32 = np.log1p(self.popularity)
        self.by_value = params.get("loss") == "mse"
        self.value_head: Float32 | None = arrays.get("value_head")
        if self.by_value:  # an item's level is added later: the best products are not the best values
            self._product = Product(arrays["value_head"][:, :-1], rough=0)
        else:
            self._product = Product(arrays["embeddings"])

    @classmethod
    def load(cls, stored: StoredRecommender) -> "OnnxScorer":
        """The scorer that a release stores; its ONNX session is the array `encoder`."""
        return cls(str(stored.params["recommender"]), stored.params, stored.vocabulary, stored.arrays)

    @property
    def scores_are_logits(self) -> bool:
        return True

    @property
    def value_model(self) -> ValueModel | None:
        return self if self.value_head is not None else None

    @property
    def reads_profiles(self) -> bool:
        return len(self.schema) > 0

    @property
    def answers_empty_histories(self) -> bool:
        return self.start_token

    def encode(self, batch: Batch) -> Float32:
        """float32 [batch, embedding_size]."""
        batch = batch.newest(self.length)
        how = {"context": "time_features" in self._inputs, "start_token": self.start_token}
        inputs = encoder_inputs(batch, self.schema, **how)
        used = {name: array for name, array in inputs.items() if name in self._inputs}
        encoded: Float32 = self.encoder.run(None, used)[0]
        return encoded

    def score(self, batch: Batch) -> Float32:
        batch = batch.newest(self.length)
        scores: Float32 = self.values(batch) if self.by_value else self._product(self.encode(batch))
        if self.gains:
            add_repeats(scores, batch.items, self.repeats)
        if not self.start_token:
            scores[~batch.has_history] = self._popular
        return scores

    def values(self, batch: Batch) -> Float32:
        """float32 [batch, items]: the value that the next event would have (stars, seconds, a price).

        Raises:
            ValueError: the release learned no values.
        """
        if self.value_head is None:
            raise ValueError(f"{self.name} learned no values; train with values above 0, or with loss mse")
        encoded = self.encode(batch)
        valued: Float32 = self._product(encoded) if self.by_value else encoded @ self.value_head[:, :-1].T
        valued += self.value_head[:, -1]
        return valued

    def probabilities(self, batch: Batch) -> Float32:
        return softmax(self.score(batch))

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        used = np.flatnonzero(weights)
        shares = self.probabilities(batch if len(used) == len(batch) else batch.take(used))
        shares *= weights[used, None]
        for place, row in enumerate(used):
            out[row] += shares[place]
