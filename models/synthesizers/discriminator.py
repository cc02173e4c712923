"""Discriminators: how well a classifier tells synthetic users from real ones. 0.5 is chance."""

from typing import Any, Final

import numpy as np

from models.arrays import Float32, Float64, Int64
from models.synthesizers.fidelity import HOUR_MS, Reference, mean_vectors
from models.synthesizers.histories import Histories

FOLDS: Final = 5
LEARNING_RATE: Final = 5e-3
LENGTH: Final = 20
"""Events that the sequence discriminator reads."""


def feature_auc(real: Histories, other: Histories, reference: Reference, seed: int = 0) -> float:
    """Area under the ROC curve of gradient boosting on features of users, cross-validated; at most 0.5 is no better
    than chance."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from threadpoolctl import threadpool_limits

    features = np.concatenate([user_features(real, reference), user_features(other, reference)])
    labels = np.repeat([0, 1], [len(real), len(other)])
    classifier = HistGradientBoostingClassifier(max_iter=100, random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with threadpool_limits(1):  # a few thousand rows: threads that wait for each other cost more than they save
        scores = cross_val_predict(classifier, features, labels, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(labels, scores))


def user_features(histories: Histories, reference: Reference) -> Float32:
    """float32 [users, features]: lengths, repeats, gaps, hours, values, sessions, popularity, and the mean vector."""
    users, lengths = histories.users, np.maximum(histories.lengths, 1)
    same = np.diff(users) == 0
    gaps = np.log1p(np.diff(histories.at)[same] / 1000)
    values = np.nan_to_num(histories.values, nan=-1.0)
    columns = [
        histories.lengths,
        _mean(users, reference.tail[histories.items], lengths),
        _mean(users, histories.at // HOUR_MS % 24, lengths),
        _mean(users, (histories.at // HOUR_MS // 24 + 3) % 7 >= 5, lengths),
        _mean(users[1:][same], gaps, np.maximum(lengths - 1, 1)),
        np.sqrt(np.maximum(_mean(users[1:][same], gaps**2, np.maximum(lengths - 1, 1)), 0)),
        _mean(users, values, lengths),
        _mean(users, histories.kinds, lengths),
        _mean(users[1:][same], _similarities(histories, reference)[same], np.maximum(lengths - 1, 1)),
        _distinct(histories) / lengths,
    ]
    vectors = mean_vectors(histories, reference)
    return np.concatenate([np.stack(columns, axis=1).astype(np.float32), vectors], axis=1)


def sequence_auc(real: Histories, other: Histories, items: int, seed: int = 0, epochs: int = 5) -> float:
    """Area under the ROC curve of a GRU over each user's first events, on a held-out fifth of the users."""
    import keras
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(seed)
    inputs = {name: np.concatenate([_padded(real)[name], _padded(other)[name]]) for name in ("items", "gaps")}
    labels = np.repeat([0.0, 1.0], [len(real), len(other)]).astype(np.float32)
    order = rng.permutation(len(labels))
    held_out, learned = order[: len(order) // 5], order[len(order) // 5 :]
    keras.utils.set_random_seed(seed)
    network = _network(items)
    network.compile(keras.optimizers.Adam(LEARNING_RATE), "binary_crossentropy")

    def rows(part: Int64) -> dict[str, Any]:
        return {name: column[part] for name, column in inputs.items()}

    network.fit(rows(learned), labels[learned], batch_size=128, epochs=epochs, verbose=0)
    scores = network.predict(rows(held_out), batch_size=512, verbose=0)[:, 0]
    return float(roc_auc_score(labels[held_out], scores))


def _network(items: int) -> Any:
    import keras
    from keras import layers

    numbers = keras.Input((LENGTH,), name="items", dtype="int32")
    gaps = keras.Input((LENGTH, 1), name="gaps")
    vectors = layers.Embedding(items + 1, 32, mask_zero=False)(numbers)
    hidden = layers.GRU(32)(layers.Concatenate()([layers.Dropout(0.2)(vectors), gaps]))
    return keras.Model({"items": numbers, "gaps": gaps}, layers.Dense(1, activation="sigmoid")(hidden))


def _padded(histories: Histories) -> dict[str, Any]:
    """`items` int32 [users, LENGTH] (numbers from 1, 0 for padding on the left), `gaps` float32 [users, LENGTH, 1]."""
    items, gaps = (
        np.zeros((len(histories), LENGTH), np.int32),
        np.zeros((len(histories), LENGTH, 1), np.float32),
    )
    users = histories.users
    place = np.arange(len(users)) - np.repeat(histories.starts[:-1], histories.lengths)
    kept = place < LENGTH
    column = LENGTH - np.minimum(histories.lengths, LENGTH)[users] + place
    items[users[kept], column[kept]] = histories.items[kept] + 1
    before = np.diff(histories.at, prepend=histories.at[:1])
    before[histories.starts[:-1][histories.lengths > 0]] = 0
    gaps[users[kept], column[kept], 0] = np.log1p(np.maximum(before[kept], 0) / 1000) / 16
    return {"items": items, "gaps": gaps}


def _mean(users: Int64, values: Any, counts: Int64) -> Float64:
    sums = np.bincount(users, np.asarray(values, np.float64), minlength=len(counts))
    return np.asarray(sums / counts, np.float64)


def _similarities(histories: Histories, reference: Reference) -> Float64:
    vectors = reference.vectors[histories.items]
    similarities: Float64 = (vectors[1:] * vectors[:-1]).sum(axis=1)
    return similarities


def _distinct(histories: Histories) -> Int64:
    pairs = np.unique(histories.users * np.int64(1 << 31) + histories.items)
    return np.bincount(pairs >> 31, minlength=len(histories))
