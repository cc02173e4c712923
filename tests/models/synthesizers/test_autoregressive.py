"""The autoregressive generator: its exported graphs, resumed fits, budgets of seconds, and both cells."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.data.interactions import Interactions
from models.synthesizers import registry
from models.synthesizers.autoregressive import Autoregressive
from models.synthesizers.base import SynthesizerContext
from models.synthesizers.conditions import ANYTHING, Conditions
from testing.interactions import RING, history, ring
from testing.synthesizer_contract import EXAMPLES, assert_same, known, labelled, sample, started

TINY: dict[str, Any] = {"embedding_size": 8, "window": 4, "batch_size": 16, "learning_rate": 0.02, "heads": 1}


@pytest.fixture(scope="module", params=["gru", "transformer"])
def fitted(request: pytest.FixtureRequest) -> Autoregressive:
    """One of each cell, on items with categories and titles."""
    return fit(labelled(), cell=request.param, epochs=2)


def fit(interactions: Interactions, context: SynthesizerContext | None = None, **params: Any) -> Autoregressive:
    synthesizer = registry.create("autoregressive", {**TINY, **params}, context)
    synthesizer.fit(interactions)
    assert isinstance(synthesizer, Autoregressive)
    return synthesizer


def test_the_exported_graphs_give_what_keras_gives(fitted: Autoregressive, tmp_path: Path) -> None:
    fitted.write_onnx(tmp_path)
    exported = Autoregressive.load_onnx(tmp_path)
    long = Conditions(first=known("i0", "i1", "i2", "i3", "i4", "i5"))
    conditions = [ANYTHING, long, *EXAMPLES.values()]
    np.testing.assert_allclose(fitted.expected(conditions), exported.expected(conditions), atol=1e-5)
    assert_same(sample(fitted, conditions, 2), sample(exported, conditions, 2))


def test_an_event_more_gives_what_the_whole_history_gives(fitted: Autoregressive) -> None:
    """Carrying the state along and reading everything again are two ways to the same distribution."""
    items = ["i0", "i3", "i1"]
    whole = [Conditions(first=known(*items[:length])) for length in (1, 2, 3)]
    expected = fitted.expected(whole)
    drawing = fitted.before_drawing(whole[:1], None, backward=False)
    state = fitted.begin(drawing)
    for length in (1, 2, 3):
        probabilities = fitted.item_probabilities(state, drawing)
        np.testing.assert_allclose(probabilities[0], expected[length - 1], atol=1e-5)
        if length < len(items):
            number = np.array([fitted.vocabulary.index[items[length]]], np.int32)
            kinds = np.array(whole[0].first.kinds, np.int32)
            state = fitted.advance(state, number, np.array([whole[2].first.times[length]]), kinds)


def test_a_fit_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    interactions = Interactions.from_frame(started(ring(24, 5)))
    whole = fit(interactions, epochs=3)
    synthesizer = registry.create("autoregressive", {**TINY, "epochs": 3}, SynthesizerContext(checkpoint=tmp_path))

    def killed(share: float, figures: Mapping[str, float]) -> None:
        if "held_out_log_likelihood" in figures:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesizer.fit(interactions, killed)
    epochs = []
    resumed = registry.create("autoregressive", {**TINY, "epochs": 3}, SynthesizerContext(checkpoint=tmp_path))
    resumed.fit(interactions, lambda _, figures: epochs.append(1) if "held_out_log_likelihood" in figures else None)
    assert len(epochs) == 2
    events = Conditions(first=history("i3", "i4"))
    # dropout is drawn from Keras' own generator, which starts again
    np.testing.assert_allclose(resumed.expected([events]), whole.expected([events]), atol=0.1)


def test_a_fit_stops_when_its_seconds_are_over() -> None:
    interactions = Interactions.from_frame(started(ring(24, 5)))
    synthesizer = fit(interactions, SynthesizerContext(seconds=0.0), epochs=1_000)
    assert synthesizer.figures["epochs"] <= 1
    assert synthesizer.expected([ANYTHING]).shape == (1, RING)
