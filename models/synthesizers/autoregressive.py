"""A generator that draws each event from a network of the events before it, forward in time or backward."""

from collections.abc import Sequence

import numpy as np

from models.arrays import AnyArray, Float64
from models.data.interactions import Interactions
from models.synthesizers.base import Progress
from models.synthesizers.histories import Histories
from models.synthesizers.neural.params import SequenceParams
from models.synthesizers.neural.synthesizer import SequenceSynthesizer


class Autoregressive(SequenceSynthesizer):
    """P(events) = product of P(event | events before it, conditions), as GRU4Rec (Hidasi et al., ICLR 2016) and SASRec
    (Kang & McAuley, ICDM 2018) model it; backward with the events after it.

    One network knows both directions. Its state is carried along, so that an event costs one step. `log_prob` and
    `expected` for one step are in closed form, for two and three steps by enumeration of the most probable
    continuations.
    """

    name = "autoregressive"

    class Params(SequenceParams, frozen=True, kw_only=True):
        """See `SequenceParams`."""

    def train(self, interactions: Interactions, progress: Progress) -> None:
        from models.synthesizers.neural.fitting import fit_network  # Keras takes seconds to import

        network, runner, figures = fit_network(self, interactions, progress)
        self._network, self._runner, self.figures = network, runner, figures

    def restore_network(self, weights: Sequence[AnyArray]) -> None:
        from models.synthesizers.neural.fitting import network_of
        from models.synthesizers.neural.keras_runner import KerasRunner

        self._network = network_of(self)
        self._network.set_weights(weights)
        self._runner = KerasRunner(self._network)

    def log_prob(self, histories: Histories) -> Float64:
        """See `Synthesizer.log_prob`; the times of events before each item count as known, its own does not."""
        from models.synthesizers.neural.keras_runner import KerasRunner
        from models.synthesizers.neural.windows import scoring_stretches

        runner = self.runner
        if not isinstance(runner, KerasRunner):
            raise ValueError(f"{self.name}: a likelihood needs the network; load what `save` wrote, not the ONNX files")
        stretches = scoring_stretches(histories.starts, self.params.window)
        logs = runner.log_likelihoods(self.reader.data_of(histories), stretches, backward=False)
        users = np.searchsorted(histories.starts, stretches.first, side="right") - 1
        sums: Float64 = np.bincount(users, logs, minlength=len(histories)).astype(np.float64)
        return sums
