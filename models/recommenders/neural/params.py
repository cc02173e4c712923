"""Hyper-parameters of the encoders: shape, objective, defences, and how training runs. Needs no Keras."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

FULL_SOFTMAX_ITEMS: Final = 1_000
"""Above so many items `auto` compares with sampled ones: all of them would cost a product with the catalogue a step."""
FULL_SOFTMAX_ON_GPU: Final = 30_000
"""There the product costs little, until the logits of a batch no longer fit: some 300 MB each time at this many."""
Loss = Literal["auto", "softmax", "sampled", "gbce", "mse"]
EncoderName = Literal["dnn", "cnn", "rnn", "transformer"]
Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]


class EncoderTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What distinguishes an encoder.

    `reads_context`: whether it reads counts of earlier events, the profile and the time of the request besides the
    history. `compiles_quickly`: whether XLA compiles it within seconds, not minutes.
    """

    reads_context: bool = False
    compiles_quickly: bool = True


ENCODERS: Final[dict[EncoderName, EncoderTraits]] = {
    "dnn": EncoderTraits(reads_context=True),
    "cnn": EncoderTraits(),
    "rnn": EncoderTraits(compiles_quickly=False),  # its steps are unrolled
    "transformer": EncoderTraits(),
}


class Params(msgspec.Struct, frozen=True, kw_only=True):
    """Hyper-parameters, under the field's names. What is 0 is off.

    Shape: `length` events of a history; `windows_per_user` stretches of that length are learned from. `repeats`:
    whether an item gains a learned amount by standing in the history already, by its age there; for domains in which
    people come back to what they had. `baskets`: whether events of one time are unordered.

    Objective: `loss` (docs/recommenders.md); `negatives` items are drawn at each step for `sampled` and `gbce`;
    `calibration` is gBCE's t. `smoothing`: share of the target that is spread over all items (`softmax` only).
    `values`: weight of a second head, which learns the value (stars, seconds, price) of what comes next.

    Besides the history, `dnn` only: `profile` reads users' attributes, hidden from a share `profile_dropout` of what is
    learned from; `context` reads the hour and the weekday (UTC) of what is to be predicted.

    Defences: `reg` (AdamW's decoupled weight decay), `l2` (of the items' vectors in a batch, in the loss), `dropout`;
    `adversarial` is the weight of the loss under vectors moved by `epsilon` where that hurts most.
    First events: with `start_token` a history begins with a learned token, so that the encoder answers for an empty
    one, by profile and moment where it reads them. A share `prefixes` of what is learned from are the beginnings of
    histories: their first 1 to 3 events, or the start token alone.

    Distillation: `distill` is the weight of the divergence from a teacher's answers to the beginnings of histories
    (`distillation`), `distill_batch` of which are learned from at each step, at `distill_temperature`.

    Augmentation, drawn again in every epoch: `mask`, `substitute` (shares of events that are hidden, or replaced by
    similar items), `crop`, `reorder` (shares of histories that begin later, or have a stretch shuffled).

    Running: `schedule` of the learning rate after its warm-up; `mixed` computes in bfloat16 over float32 weights;
    `compiled` is left to the encoder where it is None; two or more `workers` prepare batches ahead of the device.
    So many `steps_per_execution` are sent to the device before the host waits for it; 0 leaves that to the backend.
    """

    encoder: EncoderName = "transformer"
    embedding_size: Count = 64
    blocks: Count = 2
    heads: Count = 2
    length: Count = 50
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    learning_rate: Positive = 8e-3
    reg: NotNegative = 1e-4
    batch_size: Count = 128
    epochs: Annotated[int, Meta(ge=0)] = 30
    negatives: Count = 512
    windows_per_user: Count = 20
    repeats: bool = False
    baskets: bool = True
    mask: Share = 0.0
    smoothing: Share = 0.0
    seed: int = 0
    loss: Loss = "auto"
    calibration: Share = 0.75
    values: NotNegative = 0.0
    l2: NotNegative = 0.0
    adversarial: NotNegative = 0.5
    epsilon: NotNegative = 0.5
    crop: Share = 0.0
    reorder: Share = 0.0
    substitute: Share = 0.0
    start_token: bool = False
    prefixes: Share = 0.0
    distill: NotNegative = 0.0
    distill_temperature: Positive = 1.0
    distill_batch: Count = 32
    schedule: Literal["constant", "cosine"] = "constant"
    mixed: bool = False
    compiled: bool | None = None
    workers: Annotated[int, Meta(ge=0)] = 0
    steps_per_execution: Annotated[int, Meta(ge=0)] = 0
    profile: bool = False
    profile_dropout: Share = 0.2
    context: bool = False

    @property
    def traits(self) -> EncoderTraits:
        """What distinguishes the encoder."""
        return ENCODERS[self.encoder]

    def objective(self, items: int, accelerated: bool = False) -> Loss:
        """The loss that `auto` stands for with so many items, on a GPU or without; any other is itself."""
        if self.loss != "auto":
            return self.loss
        return "softmax" if items <= (FULL_SOFTMAX_ON_GPU if accelerated else FULL_SOFTMAX_ITEMS) else "sampled"

    @property
    def reads_profile(self) -> bool:
        """Whether the encoder reads attributes of users, where there are any."""
        return self.profile and self.traits.reads_context

    @property
    def reads_time(self) -> bool:
        """Whether the encoder reads the hour and the weekday of the request."""
        return self.context and self.traits.reads_context

    @property
    def valued(self) -> bool:
        """Whether values of events are learned."""
        return self.values > 0 or self.loss == "mse"
