"""A small network that ranks items by scale-free features, trained on simulated shops or on a shop's own users."""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np
from scipy import sparse

from models.arrays import Float32, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.experiments.simulated_shops import draw_settings, simulate
from models.experiments.simulated_shops_features import FEATURES, ShopFeatures, titles_alike
from models.recommenders.base import Scorer
from models.synthesizers.histories import Histories

HIDDEN: Final = (32, 16)
NEGATIVES: Final = 127
"""Items that are drawn evenly for each target: sampled softmax with an even draw needs no correction."""
KNOWN: Final = (1, 2, 3, 5)
HORIZONS: Final = 5
QUESTIONS: Final = 60
"""Questions of a simulated shop."""
TRAINED_ON: Final = 0.7
"""The share of a shop's users that statistics are counted on; the others are asked."""


class RankingQuestions(msgspec.Struct, frozen=True):
    """`features` float32 [questions, 1 + NEGATIVES, features]; the first item of each question is the target."""

    features: Float32

    def __len__(self) -> int:
        return len(self.features)


class RankingNetwork(msgspec.Struct, frozen=True):
    """Weights float32 [inputs, outputs] and biases of each layer; ReLU between them. `mean`, `deviation` [features]."""

    layers: tuple[tuple[Float32, Float32], ...]
    mean: Float32
    deviation: Float32

    def scores(self, features: Float32) -> Float32:
        """float32 [items]: from features float32 [items, features]."""
        hidden = (features - self.mean) / self.deviation
        for number, (weights, biases) in enumerate(self.layers):
            hidden = hidden @ weights + biases
            if number + 1 < len(self.layers):
                hidden = np.maximum(hidden, 0.0)
        return hidden[:, 0]


class FeatureRanker(Scorer):
    """Ranks a shop's items by a network over `ShopFeatures`. It is not fitted: the shop is only counted."""

    def __init__(self, name: str, network: RankingNetwork, interactions: Interactions) -> None:
        self.name, self.network, self.vocabulary = name, network, interactions.vocabulary
        self.features = ShopFeatures(interactions)

    @property
    def reads_time(self) -> bool:
        return True

    def score(self, batch: Batch) -> Float32:
        times = np.array([context.at for context in batch.contexts], np.int64)
        recent = self.features.recent(times)
        out = np.zeros((len(batch), len(self.vocabulary)), np.float32)
        for row, numbers in enumerate(batch.items):
            history = (numbers[numbers > 0] - 1).astype(np.int64)
            own = [counts[row] for counts in recent]
            out[row] = self.network.scores(self.features.of(history, int(times[row]), own))
        return out

    def probabilities(self, batch: Batch) -> Float32:
        scores = self.score(batch)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities: Float32 = shares / shares.sum(axis=1, keepdims=True)
        return probabilities


def simulated_questions(shops: int, rng: np.random.Generator) -> RankingQuestions:
    """Questions of users of so many simulated shops."""
    parts = []
    for _ in range(shops):
        shop = simulate(draw_settings(rng), rng)
        parts += list(_questions(shop.interactions, shop.alike, QUESTIONS, rng))
    return RankingQuestions(np.stack(parts))


def own_questions(interactions: Interactions, most: int, rng: np.random.Generator) -> RankingQuestions:
    """Questions of a shop's own users: statistics are counted on some of them, and the others are asked, in turn."""
    alike, rounds = titles_alike(interactions), 3
    parts = [part for _ in range(rounds) for part in _questions(interactions, alike, most // rounds, rng)]
    return RankingQuestions(np.stack(parts))


def train(questions: RankingQuestions, seed: int = 0, epochs: int = 10) -> RankingNetwork:
    """Train by the softmax of the target among the drawn items."""
    import keras

    keras.utils.set_random_seed(seed)
    flat = questions.features.reshape(-1, len(FEATURES))
    mean, deviation = flat.mean(axis=0), np.maximum(flat.std(axis=0), 1e-3)
    sizes = (*HIDDEN, 1)
    layers = [keras.layers.Dense(n, "relu" if n > 1 else None) for n in sizes]
    model = keras.Sequential([keras.Input((NEGATIVES + 1, len(FEATURES))), *layers, keras.layers.Flatten()])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(3e-3, weight_decay=1e-4), loss)
    targets = np.zeros(len(questions), np.int64)
    model.fit((questions.features - mean) / deviation, targets, batch_size=64, epochs=epochs, verbose=0)
    weights = tuple((layer.get_weights()[0], layer.get_weights()[1]) for layer in layers)
    return RankingNetwork(weights, mean.astype(np.float32), deviation.astype(np.float32))


def _questions(
    interactions: Interactions, alike: sparse.csr_matrix, most: int, rng: np.random.Generator
) -> Iterator[Float32]:
    """float32 [1 + NEGATIVES, features] for each question; statistics are counted on other users."""
    order = rng.permutation(interactions.user_count)
    counted = order[: max(1, round(TRAINED_ON * len(order)))]
    features = ShopFeatures(interactions.of_users(counted), alike)
    histories, size = Histories.from_interactions(interactions), len(interactions.vocabulary)
    held_out = np.setdiff1d(order, counted)
    held_out = rng.choice(held_out, most) if len(held_out) else held_out
    for user in held_out.tolist():
        own = slice(int(histories.starts[user]), int(histories.starts[user + 1]))
        items, times = histories.items[own].astype(np.int64), histories.at[own]
        k = min(int(rng.choice(KNOWN)), len(items) - 1)
        place = min(k + int(rng.integers(HORIZONS)), len(items) - 1)
        if k < 1 or items[place] in items[:k]:
            continue
        at = int(times[place])
        recent = [counts[0] for counts in features.recent(np.array([at], np.int64))]
        drawn: Int64 = np.concatenate([items[place : place + 1], rng.integers(size, size=NEGATIVES)])
        drawn[1:] = np.where(drawn[1:] == drawn[0], (drawn[1:] + 1) % size, drawn[1:])
        yield features.of(items[:k], at, recent)[drawn]
