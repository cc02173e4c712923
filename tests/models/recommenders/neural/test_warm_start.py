"""Warm starts: a network begins where another ended."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.catalogue import UserProfile
from models.data.interactions import Interactions
from models.data.profiles import ProfileHistory
from models.errors import TrainingError
from models.recommenders.base import TuningContext
from models.recommenders.neural import warm_start
from models.recommenders.neural.recommender import WARMLY, Neural
from models.recommenders.registry import create, neural_names

SMALL = {"embedding_size": 8, "blocks": 1, "heads": 1, "dropout": 0.0, "learning_rate": 1e-2, "adversarial": 0.0}
SITUATION = TuningContext(repeats=True, length=8)
CATEGORIES = {f"i{n}": "even" if n % 2 == 0 else "odd" for n in range(13)}


def ring(items: int, users: int = 40, steps: int = 12) -> pd.DataFrame:
    """After item n comes n + 1."""
    rows = [
        (f"u{user}", f"i{(user + step) % items}", "view", None, 1_000 * step + user)
        for step in range(steps)
        for user in range(users)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "value", "at"])


def fitted(name: str, log: Interactions, start: warm_start.Start | None = None, **more: object) -> Neural:
    model = create(name, {**SMALL, "epochs": 3, **more}, SITUATION)
    assert isinstance(model, Neural)
    model.start = start
    model.fit(log)
    return model


@pytest.mark.parametrize("name", neural_names())
def test_it_begins_with_the_weights_of_the_same_items_in_another_order(name: str, tmp_path: Path) -> None:
    first = fitted(name, Interactions.from_frame(ring(12), categories=CATEGORIES))
    warm_start.write(tmp_path / "training.npz", warm_start.start_of(first, 5_000))
    start = warm_start.read((tmp_path / "training.npz").read_bytes(), "20260101T000000-abcdef")
    assert (start.encoder, start.until) == (name, 5_000)
    other = pd.concat([ring(13), pd.DataFrame({"item_id": ["i5"] * 50, "user_id": "x", "kind": "view", "at": 0})])
    log = Interactions.from_frame(other.sort_values("at", kind="stable"), categories=CATEGORIES)
    assert log.vocabulary.item_ids[0] == "i5" != first.vocabulary.item_ids[0]
    begun = fitted(name, log, start, epochs=0)  # no epoch: what it begins with is what it has
    assert begun.started_from == "20260101T000000-abcdef"
    old, new = first.embeddings(), begun.embeddings()
    for item, place in first.vocabulary.index.items():
        np.testing.assert_allclose(new[begun.vocabulary.index[item]], old[place], atol=1e-6)
    even = [first.vocabulary.index[f"i{n}"] for n in range(0, 12, 2)]
    np.testing.assert_allclose(new[begun.vocabulary.index["i12"]], old[even].mean(axis=0), atol=1e-5)
    assert begun.network is not None
    assert first.network is not None
    for ours, theirs in zip(begun.network.encoder.weights, first.network.encoder.weights, strict=True):
        np.testing.assert_array_equal(np.array(ours), np.array(theirs))


def test_what_does_not_fit_changes_nothing() -> None:
    log = Interactions.from_frame(ring(12))
    start = warm_start.start_of(fitted("dnn", log), 0)
    for name, more in (("transformer", {}), ("dnn", {"embedding_size": 16}), ("dnn", {"blocks": 2})):
        cold, tried = fitted(name, log, epochs=0, **more), fitted(name, log, start, epochs=0, **more)
        assert tried.started_from is None
        np.testing.assert_array_equal(tried.embeddings(), cold.embeddings())


def test_what_is_known_already_is_learned_on_with_a_lower_rate() -> None:
    log = Interactions.from_frame(ring(12))
    cold = fitted("dnn", log, epochs=1)
    begun = fitted("dnn", log, warm_start.start_of(cold, 0), epochs=1)
    assert cold.network is not None
    assert begun.network is not None
    rates = [float(model.network.optimizer.learning_rate) for model in (cold, begun)]
    assert rates[1] == pytest.approx(WARMLY * rates[0])
    assert begun.params.learning_rate == cold.params.learning_rate  # which is on the card, for the run after it


def test_what_is_no_start_is_said() -> None:
    with pytest.raises(TrainingError, match="training begins without"):
        warm_start.read(b"PK nothing")
    raw = io.BytesIO()
    np.savez(raw, items=np.zeros(3))
    with pytest.raises(TrainingError, match="cannot be read"):
        warm_start.read(raw.getvalue())


def test_what_attributes_say_is_matched_by_their_names(tmp_path: Path) -> None:
    """The second log has a plan more, so every code is another one."""
    profiles = [UserProfile(f"u{n}", 0, attributes={"plan": ("gold", "iron")[n % 2]}) for n in range(20)]
    first = fitted("dnn", Interactions.from_frame(ring(12), profiles=ProfileHistory.from_users(profiles)), profile=True)
    warm_start.write(tmp_path / "training.npz", warm_start.start_of(first, 5_000))
    start = warm_start.read((tmp_path / "training.npz").read_bytes(), "before")
    more = [UserProfile(f"u{n}", 0, attributes={"plan": "bronze"}) for n in range(20, 40)]
    begun = fitted(
        "dnn",
        Interactions.from_frame(ring(12), profiles=ProfileHistory.from_users([*profiles, *more])),
        start,
        epochs=0,
        profile=True,
    )
    assert begun.started_from == "before"
    assert first.fields.labels == ["plan=", "plan=gold", "plan=iron"]
    assert begun.fields.labels == ["plan=", "plan=bronze", "plan=gold", "plan=iron"]
    old, new = (np.array(model.network.profile.embeddings) for model in (first, begun) if model.network is not None)
    np.testing.assert_array_equal(new[[0, 2, 3]], old)
    plain = fitted("dnn", Interactions.from_frame(ring(12)), start, epochs=0)
    assert plain.started_from == "before"  # a network without profiles takes the rest
