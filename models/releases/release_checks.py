"""What a release has to be beyond whole files: arrays that fit its items, and a recommender that scores them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.arrays import AnyArray
from models.data.batch import Batch
from models.data.vocabulary import PREFERENCE_WEIGHTS, Vocabulary, kind_weights_of
from models.errors import ReleaseError
from models.recommenders import registry
from models.recommenders.base import Scorer
from models.recommenders.freshness import FIRST_SEEN
from models.releases.manifest import Manifest

NEEDED: Final = ("popularity", "neighbors", "similarities")
"""The arrays that every release has."""
OWN_ROWS: Final = ("repeats", "inputs", "outputs", "item_starts", "item_users", "user_starts", "user_items")
"""Arrays without one row for each item: their recommenders check them when they are loaded."""
TRIED_ITEMS: Final = 8


def check_arrays(folder: Path, items: int, arrays: Mapping[str, Any]) -> None:
    """Check every array against the number of items.

    Raises:
        ReleaseError: missing-file, shape-mismatch or not-finite.
    """
    for name in NEEDED:
        if not isinstance(arrays.get(name), np.ndarray):
            raise ReleaseError("missing-file", f"{folder}: the manifest names no {name}.npy")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            continue
        if name.rsplit(".", 1)[-1] not in OWN_ROWS and array.shape[0] != items:
            raise ReleaseError("shape-mismatch", f"{folder}: {name} has {array.shape[0]} rows for {items} items")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ReleaseError("not-finite", f"{folder}: {name} holds a value that is not finite")
        problem = _problem(name.rsplit(".", 1)[-1], array, arrays.get(name.replace("neighbors", "similarities")), items)
        if problem:
            raise ReleaseError("shape-mismatch", f"{folder}: {name} {problem}")


def _problem(kind: str, array: AnyArray, similarities: Any, items: int) -> str | None:
    """What is wrong with an array of a known kind."""
    if kind == "popularity" and (array.ndim != 1 or array.dtype.kind != "f" or array.min(initial=0) < 0):
        return f"is {array.dtype} of shape {array.shape}, not one share above 0 for each item"
    if kind == FIRST_SEEN and (array.ndim != 1 or array.dtype.kind != "i"):
        return f"is {array.dtype} of shape {array.shape}, not one time for each item"
    if kind == "neighbors" and not (
        array.ndim == 2
        and array.dtype.kind == "i"
        and isinstance(similarities, np.ndarray)
        and similarities.shape == array.shape
        and similarities.dtype.kind == "f"
        and array.min(initial=0) >= -1
        and array.max(initial=-1) < items
    ):
        return f"and its similarities do not fit {items} items"
    return None


def checked_recommender(
    folder: Path, manifest: Manifest, item_ids: list[str], arrays: Mapping[str, Any], prefix: str
) -> Scorer:
    """The recommender of a release, after everything that look-ups call was called once.

    `prefix`: of its arrays' names.

    Raises:
        ReleaseError: missing-file or shape-mismatch.
    """
    params = {**manifest.params, "recommender": manifest.recommender}
    try:
        vocabulary = Vocabulary.from_items(item_ids, kind_weights_of(manifest.params.get("kinds", PREFERENCE_WEIGHTS)))
        recommender = registry.load(params, vocabulary, arrays, prefix)
    except KeyError as error:
        needed = str(error.args[0])[:80] if error.args else "a parameter"
        raise ReleaseError("missing-file", f"{folder}: {manifest.recommender[:80]} needs {needed!r}") from error
    except Exception as error:  # parameters are free: whatever a constructor makes of them
        raise ReleaseError("shape-mismatch", f"{folder}: {type(error).__name__}: {error}") from error
    if len(vocabulary.index) != len(item_ids):
        raise ReleaseError("duplicate-items", f"{folder}: items.json names an item twice; train again or roll back")
    try:
        problem = _trial(recommender, len(item_ids), manifest.history_length)
    except Exception as error:  # onnxruntime's own exceptions share no base below Exception
        raise ReleaseError("shape-mismatch", f"{folder}: {manifest.recommender} cannot score: {error}") from error
    if problem:
        raise ReleaseError("shape-mismatch", f"{folder}: {manifest.recommender} {problem}")
    return recommender


def _trial(recommender: Scorer, items: int, length: int) -> str | None:
    """Score two histories, an empty one and one of a single item; what is wrong with the result."""
    histories = np.zeros((2, length), np.int32)
    histories[1, -1] = 1
    batch, single = Batch(histories, histories, histories), Batch(histories[1:], histories[1:], histories[1:])
    calls: list[Callable[[Batch], Any]] = [recommender.score, recommender.probabilities]
    if recommender.value_model is not None:
        calls.append(recommender.value_model.values)
    for call in calls:
        scores = call(batch)
        if scores.shape != (2, items) or scores.dtype.kind != "f" or not np.isfinite(scores).all():
            return f"scores {scores.dtype} of shape {scores.shape}, or not finitely"
    recommender.contributions(single, np.arange(min(TRIED_ITEMS, items)))
    return None if np.isfinite(recommender.score_sum(single)) else "has no finite sum of scores"
