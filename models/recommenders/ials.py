"""Implicit alternating least squares: factors by the package `implicit`, users folded in when they ask."""

from pathlib import Path
from typing import Any

import numpy as np

from models.arrays import Float32
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import add_dense, shares, write_arrays
from models.recommenders.popularity import popularity_of, tie_of


class IALS:
    """Weighted matrix factorization of who took what (Hu, Koren & Volinsky, ICDM 2008).

    A history's vector is the least-squares solution against the item factors (their eq. 4), so that a user who came
    after training is served as one who was there. Confidence of an event is `alpha` times its weight in the history.
    """

    name = "ials"

    def __init__(
        self,
        factors: int = 64,
        reg: float = 0.05,
        alpha: float = 10.0,
        iterations: int = 12,
        decay: float = 0.95,
        seed: int = 0,
    ) -> None:
        self.factors, self.reg, self.alpha, self.iterations, self.decay = factors, reg, alpha, iterations, decay
        self.seed = seed
        self.vocabulary = Vocabulary.from_items([])
        self.popularity: Float32 = np.zeros(0, np.float32)
        self.item_factors: Float32 = np.zeros((0, factors), np.float32)
        self._gram: Float32 | None = None

    def fit(self, log: Interactions) -> None:
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        self.vocabulary = log.vocabulary
        self.popularity = popularity_of(log, log.vocabulary.popularity_half_life_ms)
        settings = {"regularization": self.reg, "alpha": self.alpha, "iterations": self.iterations}
        with threadpool_limits(1, "blas"):  # implicit runs its own threads
            model = AlternatingLeastSquares(self.factors, random_state=self.seed, **settings)
            model.fit(log.user_item_matrix(), show_progress=False)
        self.item_factors = np.asarray(model.item_factors, np.float32)
        self._gram = None

    def score(self, batch: Batch) -> Float32:
        factors = self.item_factors
        if self._gram is None:
            self._gram = (factors.T @ factors + self.reg * np.eye(self.factors)).astype(np.float32)
        confidence = self.alpha * batch.event_weights(self.decay)
        users = np.zeros((len(batch), self.factors), np.float32)
        for row in np.flatnonzero(batch.has_history):
            kept = batch.items[row] > 0
            taken, sure = factors[batch.items[row][kept] - 1], confidence[row][kept]
            excess = taken.T * (sure - 1)
            users[row] = np.linalg.solve(self._gram + excess @ taken, taken.T @ sure)
        out: Float32 = users @ factors.T
        out += tie_of(self.popularity)
        return out

    def probabilities(self, batch: Batch) -> Float32:
        return shares(self.score(batch))

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        add_dense(out, self.probabilities(batch), weights)

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        return write_arrays(folder, prefix, {"popularity": self.popularity, "factors": self.item_factors})

    def describe(self) -> dict[str, Any]:
        settings = {"factors": self.factors, "reg": self.reg, "alpha": self.alpha, "iterations": self.iterations}
        return {**settings, "decay": self.decay, "seed": self.seed}
