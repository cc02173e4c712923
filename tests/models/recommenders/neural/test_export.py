"""Encoders as ONNX, whatever backend of Keras trained them."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from models.data.batch import encoder_inputs
from models.data.interactions import Interactions
from models.data.profiles import Attribute, ProfileSchema
from models.errors import TrainingError
from models.recommenders.neural import export
from models.recommenders.neural.network import Network
from models.recommenders.neural.recommender import Neural, Params
from testing.interactions import ring
from testing.jax_training import query_batch

FIELDS = ProfileSchema([Attribute("age", ("old", "young"))])


def network(encoder: str, **more: bool) -> Network:
    params = Params(encoder=encoder, embedding_size=8, blocks=1, heads=1, length=5, **more)
    model = Network(np.array([0, 1, 2], np.int32), params, fields=FIELDS)
    model(model.nothing())
    return model


def encoded(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {
        "items": [[0, 1, 2, 3, 1]],
        "kinds": [[0, 1, 1, 2, 1]],
        "gaps": [[0, 3, 2, 1, 1]],
        "profile": [[2]],
        "time_features": [[7, 3]],
    }
    input_names = {port.name for port in session.get_inputs()}
    outputs = session.run(
        None, {name: np.array(array, np.int32) for name, array in given.items() if name in input_names}
    )
    return np.asarray(outputs[0])


def test_a_process_of_its_own_writes_the_same_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("dnn", profile=True, context=True)
    export.write_encoder(model, tmp_path / "here.onnx")
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    export.write_encoder(model, tmp_path / "there.onnx")
    here, there = (encoded(tmp_path / f"{name}.onnx") for name in ("here", "there"))
    assert np.abs(here).max() > 0.1
    np.testing.assert_allclose(there, here, atol=1e-6)


def test_a_process_that_fails_is_named_with_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("transformer")
    (tmp_path / "file").touch()
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(TrainingError, match=r"encoder\.onnx was not written: .*File exists"):
        export.write_encoder(model, tmp_path / "file" / "encoder.onnx")


TRAINED_BY_JAX = """
import sys
from pathlib import Path
import keras, numpy as np
from testing.jax_training import query_batch, trained_by_jax
assert keras.backend.backend() == "jax"
model, folder = trained_by_jax(), Path(sys.argv[1])
np.save(folder / "scores.npy", model.score(query_batch(model)))
np.save(folder / "ahead.npy", trained_by_jax(ahead=3).score(query_batch(model)))
model.save(folder)
"""


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_onnx_runtime_scores_as_jax_trained(tmp_path: Path) -> None:
    variables = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", TRAINED_BY_JAX, str(tmp_path)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    here = Neural(Params(length=8))
    here.vocabulary = Interactions.from_frame(ring()).vocabulary
    inputs = encoder_inputs(query_batch(here).newest(8), ProfileSchema(), context=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "encoder.onnx"), providers=["CPUExecutionProvider"])
    hidden = session.run(None, {port.name: inputs[port.name] for port in session.get_inputs()})[0]
    input_names = np.load(tmp_path / "scores.npy")
    assert np.ptp(input_names) > 0.5
    np.testing.assert_allclose(np.load(tmp_path / "ahead.npy"), input_names, atol=1e-4)
    np.testing.assert_allclose(hidden @ np.load(tmp_path / "embeddings.npy").T, input_names, atol=1e-4)
