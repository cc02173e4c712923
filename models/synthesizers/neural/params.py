"""Hyper-parameters of the generators that are networks. Needs no Keras."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

FULL_SOFTMAX_ITEMS: Final = 5_000
"""With more items the loss compares with sampled ones: all of them would cost a product with the catalogue a step."""
Cell = Literal["gru", "transformer"]
Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, lt=1)]


class SequenceParams(msgspec.Struct, frozen=True, kw_only=True):
    """Hyper-parameters under the field's names.

    `cell`: what reads the events so far, a GRU (Hidasi et al., ICLR 2016) or causal self-attention (Kang & McAuley,
    ICDM 2018) over the last `window` events. `condition_dropout`: share of histories from which each condition is
    hidden in training, so that any combination works. `reg`: AdamW's decoupled weight decay. `negatives`: items that
    the loss compares with, in catalogues of more than `full_softmax` items. The fit stops when held-out users
    (`held_out`, a share) have not become more likely for `patience` epochs.
    """

    cell: Cell = "gru"
    embedding_size: Count = 64
    blocks: Count = 1
    heads: Count = 2
    window: Annotated[int, Meta(ge=2)] = 50
    dropout: Share = 0.3
    condition_dropout: Share = 0.3
    learning_rate: Annotated[float, Meta(gt=0)] = 4e-3
    reg: Annotated[float, Meta(ge=0)] = 0.01
    batch_size: Count = 128
    epochs: Annotated[int, Meta(ge=0)] = 50
    patience: Count = 3
    held_out: Annotated[float, Meta(gt=0, le=0.5)] = 0.05
    negatives: Count = 1024
    full_softmax: Annotated[int, Meta(ge=0)] = FULL_SOFTMAX_ITEMS


class LatentParams(SequenceParams, frozen=True, kw_only=True):
    """Of a network with a latent vector of `latent` units besides.

    `free_bits`: nats that each unit may say at no cost. The divergence's weight rises in `cycles` of `cycle` steps,
    then stays 1. `event_dropout`: share of events that are hidden from the decoder in training. `draws`: latent vectors
    over which expectations and bounds of likelihoods are averaged.
    """

    latent: Count = 16
    free_bits: Annotated[float, Meta(ge=0)] = 0.1
    cycle: Count = 400
    cycles: Annotated[int, Meta(ge=0)] = 3
    event_dropout: Share = 0.2
    draws: Count = 16
