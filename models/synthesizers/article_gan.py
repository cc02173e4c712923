"""The GAN of tabular recipes, kept as a weak baseline: a dense generator against a linear discriminator."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta
from scipy import sparse

from models.arrays import AnyArray, Float32, Int32, Int64
from models.data.interactions import Interactions
from models.synthesizers.base import (
    Progress,
    SynthesizerContext,
    conditions_for_step,
    no_progress,
    require_events,
)
from models.synthesizers.conditions import Conditions, check_conditions
from models.synthesizers.decoding import LATENT, DrawingState
from models.synthesizers.details import EventDetails
from models.synthesizers.neural.latent_decoder import SLOPE
from models.synthesizers.stepwise import StepwiseSynthesizer
from models.synthesizers.streams import RandomStreams

NOISES: Final = 512
"""Generated users over which an expectation is averaged."""


class ArticleGAN(StepwiseSynthesizer):
    """A user is the shares of items in a history: noise -> dense layer -> softmax over items, against a discriminator
    that is one linear layer; the losses of the first GAN (Goodfellow et al., NeurIPS 2014, section 3).

    The discriminator compares the generator's shares with counted ones, and sees no order. A history is drawn from its
    user's shares, each event by itself. It reads no condition.
    """

    name = "article-gan"
    supports = frozenset()

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`noise_size`: inputs of the generator; `units`: its hidden layer; `steps`: updates of both sides."""

        noise_size: Annotated[int, Meta(ge=1, le=512)] = 32
        units: Annotated[int, Meta(ge=1, le=1024)] = 128
        steps: Annotated[int, Meta(ge=1)] = 2_000
        batch_size: Annotated[int, Meta(ge=8)] = 128
        learning_rate: Annotated[float, Meta(gt=0)] = 1e-3

    def __init__(self, params: msgspec.Struct | None = None, context: SynthesizerContext | None = None) -> None:
        super().__init__(params, context)
        self.weights: dict[str, Float32] = {}
        self.training: list[dict[str, float]] = []

    def fit(self, interactions: Interactions, progress: Progress = no_progress) -> None:
        from models.synthesizers.neural.item_shares import train_dense_generator

        require_events(interactions, self.name)
        self.vocabulary = interactions.vocabulary
        self.details.fit(interactions)
        shape = (interactions.user_count, len(self.vocabulary))
        ones = np.ones(len(interactions), np.float32)
        users = interactions.users
        each = (ones / np.bincount(users)[users]).astype(np.float32)
        shares = sparse.csr_matrix((each, (users, interactions.items)), shape)
        self.weights, self.training = train_dense_generator(
            shares, self.params, self.context.seed, self.context.seconds, progress
        )

    def begin(self, drawing: DrawingState) -> Float32:
        """float32 [rows, items]: the user's shares of items, the same for all of the events."""
        if drawing.streams is None:
            raise ValueError("shares are drawn from the histories' random streams; the drawing state has none")
        return self._shares(drawing.streams)

    def expected(self, conditions: Sequence[Conditions], steps: int = 1, seed: int = 0) -> Float32:
        """As every synthesizer's: the mean of the shares of NOISES users, whatever the step."""
        check_conditions(conditions_for_step(conditions, steps), self.supports, self.name)
        mean = self._shares(RandomStreams(np.arange(NOISES), seed)).mean(axis=0)
        return np.repeat(mean[None], len(conditions), axis=0).astype(np.float32)

    def _shares(self, streams: RandomStreams) -> Float32:
        """float32 [rows, items]: row by row, so that a row does not depend on how many there are."""
        shares, w = np.zeros((len(streams), len(self.vocabulary)), np.float32), self.weights
        for row, noise in enumerate(streams.normal(0, LATENT, self.params.noise_size).astype(np.float32)):
            hidden = noise @ w["hidden"] + w["hidden-bias"]
            logits = np.where(hidden > 0, hidden, SLOPE * hidden) @ w["items"] + w["items-bias"]
            shares[row] = np.exp(logits - logits.max())
            shares[row] /= shares[row].sum()
        return shares

    def item_probabilities(self, state: Float32, drawing: DrawingState) -> Float32:  # noqa: ARG002
        return state

    def advance(self, state: Float32, items: Int32, at: Int64, kinds: Int32) -> Float32:  # noqa: ARG002
        return state

    def arrays(self) -> dict[str, AnyArray]:
        details = {f"details-{name}": array for name, array in self.details.arrays().items()}
        return {**self.weights, **details}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        details = {name.removeprefix("details-"): array for name, array in arrays.items()}
        self.details = EventDetails.from_arrays(details)
        self.weights = {name: np.asarray(arrays[name]) for name in ("hidden", "hidden-bias", "items", "items-bias")}
