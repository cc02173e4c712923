"""A generator that draws each event from a network of the events before it, forward in time or backward."""

from typing import Any

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

    @classmethod
    def classes(cls) -> tuple[Any, Any]:
        from models.synthesizers.neural.keras_runner import KerasRunner
        from models.synthesizers.neural.network import SequenceNetwork

        return SequenceNetwork, KerasRunner
