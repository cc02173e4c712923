"""The neural recommenders as the registry names them. Needs no Keras until one is created."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from models.recommenders.base import Recommender, ReleasableSpec, Scorer, StoredRecommender, TuningContext, checked
from models.recommenders.neural.params import FULL_SOFTMAX_ITEMS, FULL_SOFTMAX_ON_GPU, EncoderName, Params
from models.recommenders.onnx_scorer import OnnxScorer

if TYPE_CHECKING:
    from optuna import Trial

SPACE_VERSION: Final = 3
"""Increased whenever the space below changes, since a study cannot go on in another space."""


class EncoderSpec(ReleasableSpec):
    """A neural recommender with one kind of encoder."""

    encoder: ClassVar[EncoderName]
    is_neural = True
    derived = frozenset({"encoder", "seed", "length", "repeats", "baskets", "fields"})

    @classmethod
    def create(cls, params: Mapping[str, Any], context: TuningContext, seed: int = 0) -> Recommender:
        from models.recommenders.neural.recommender import Neural  # Keras takes seconds to import

        given = {"length": context.length, "repeats": context.repeats, "baskets": context.baskets}
        return Neural(checked(Params, {**given, **params, "encoder": cls.encoder, "seed": seed}, cls.encoder))

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        sampled, losses = context.items > FULL_SOFTMAX_ITEMS, ["sampled", "gbce"]
        if full_softmax_on_gpu(context):
            losses.append("softmax")
        return {
            "embedding_size": trial.suggest_categorical("embedding_size", [64, 96, 128]),
            "blocks": trial.suggest_int("blocks", 1, 3),
            "dropout": trial.suggest_float("dropout", 0.1, 0.5),
            "learning_rate": trial.suggest_float("learning_rate", 2e-3, 2e-2, log=True),
            "reg": trial.suggest_float("reg", 1e-5, 1e-1, log=True),
            "negatives": trial.suggest_categorical("negatives", [256, 512, 1024, 2048]) if sampled else 512,
            "mask": trial.suggest_float("mask", 0.0, 0.3),
            "start_token": trial.suggest_categorical("start_token", [False, True]),
            "prefixes": trial.suggest_categorical("prefixes", [0.0, 0.25, 0.5]),
            "adversarial": trial.suggest_categorical("adversarial", [0.0, 0.5, 1.0]),
            "loss": trial.suggest_categorical("loss", losses) if sampled else "auto",
        }

    @classmethod
    def space_id(cls, context: TuningContext) -> str:
        return f"/{SPACE_VERSION}/{full_softmax_on_gpu(context)}"

    @classmethod
    def load(cls, stored: StoredRecommender) -> Scorer:
        return OnnxScorer.load(stored)


class DNNSpec(EncoderSpec):
    """The dense encoder, which alone reads profiles and the time of the request."""

    encoder = "dnn"

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        params = {**super().space(trial, context), "context": trial.suggest_categorical("context", [False, True])}
        if context.profiles:
            params["profile"] = trial.suggest_categorical("profile", [False, True])
        return params

    @classmethod
    def space_id(cls, context: TuningContext) -> str:
        return super().space_id(context) + ("/profiles" if context.profiles else "")


class CNNSpec(EncoderSpec):
    """The convolutional encoder."""

    encoder = "cnn"


class RNNSpec(EncoderSpec):
    """The recurrent encoder."""

    encoder = "rnn"


class TransformerSpec(EncoderSpec):
    """The encoder of causal self-attention."""

    encoder = "transformer"


def full_softmax_on_gpu(context: TuningContext) -> bool:
    """Whether the full softmax is tried over a large catalogue too: it is affordable on a GPU."""
    from models.recommenders.neural.network import accelerated  # Keras takes seconds to import

    return FULL_SOFTMAX_ITEMS < context.items <= FULL_SOFTMAX_ON_GPU and accelerated()
