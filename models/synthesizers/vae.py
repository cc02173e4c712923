"""A sequence VAE: a latent vector behind the whole history, and events drawn one after another given it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.arrays import AnyArray, Float32
from models.synthesizers.base import conditions_for_step
from models.synthesizers.conditions import Conditions, check_conditions
from models.synthesizers.decoding import LATENT, DrawingState
from models.synthesizers.enumeration import MOST, expected_after
from models.synthesizers.neural.params import LatentParams
from models.synthesizers.neural.synthesizer import ENUMERATED, SequenceSynthesizer
from models.synthesizers.streams import RandomStreams


class VAE(SequenceSynthesizer):
    """z ~ p(z | conditions, first events); each event ~ p(event | events before it, conditions, z).

    A variational autoencoder (Kingma & Welling, ICLR 2014) with a conditional prior (Sohn et al., NeurIPS 2015) and an
    autoregressive decoder (Bowman et al., CoNLL 2016). Such decoders tend to ignore z; free bits (Kingma et al.,
    NeurIPS 2016), an annealed divergence and events hidden from the decoder prevent it. `figures` holds how much z says
    of users held out: `active_units` (Burda et al., ICLR 2016) and `mutual_information`. `log_prob` is a bound from
    below.
    """

    name = "vae"

    class Params(LatentParams, frozen=True, kw_only=True):
        """See `LatentParams`."""

    @classmethod
    def classes(cls) -> tuple[Any, Any]:
        from models.synthesizers.neural.latent_network import LatentNetwork
        from models.synthesizers.neural.latent_runner import LatentRunner

        return LatentNetwork, LatentRunner

    @property
    def latent_units(self) -> int:
        return int(self.params.latent)

    def expected(self, conditions: Sequence[Conditions], steps: int = 1, seed: int = 0) -> Float32:
        """See `Synthesizer.expected`: the mean over `draws` latent vectors of the distribution given each."""
        draws = self.params.draws
        each = [condition for condition in conditions for _ in range(draws)]
        if abs(steps) in ENUMERATED:
            turned = conditions_for_step(each, steps)
            check_conditions(turned, self.supports, self.name)
            shares = expected_after(self, turned, abs(steps) - 1, backward=steps < 0, most=max(2, MOST // draws))
        elif abs(steps) == 1:
            shares = super().expected(each, steps, seed)
        else:
            return super().expected(conditions, steps, seed)
        means: Float32 = shares.reshape(len(conditions), draws, -1).mean(axis=1)
        return means

    def inputs_of(self, drawing: DrawingState) -> dict[str, AnyArray]:
        streams = drawing.streams
        if streams is None:  # an expectation: consecutive rows have different vectors, the same for each condition
            streams = RandomStreams(np.arange(len(drawing.conditions)) % self.params.draws, 0)
        noise = streams.normal(0, LATENT, self.params.latent).astype(np.float32)
        return {**super().inputs_of(drawing), "noise": noise}
