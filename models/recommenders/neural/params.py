"""Hyper-parameters of the encoders: shape, objective, defences, and how training runs. Needs no Keras."""

from typing import Final, Literal

import msgspec

FULL_SOFTMAX_ITEMS: Final = 1_000
"""Above so many items `auto` compares with sampled ones: all of them would cost a product with the catalogue a step."""
FULL_SOFTMAX_ON_GPU: Final = 30_000
"""There the product costs little, until the logits of a batch no longer fit: some 300 MB each time at this many."""
Loss = Literal["auto", "softmax", "sampled", "gbce", "mse"]


class Params(msgspec.Struct, frozen=True):
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
    Augmentation, drawn anew in every epoch: `mask`, `substitute` (shares of events that are hidden, or replaced by
    similar items), `crop`, `reorder` (shares of histories that begin later, or have a stretch shuffled).

    Running: `schedule` of the learning rate after its warm-up; `mixed` computes in bfloat16 over float32 weights;
    `compiled` is left to the encoder where it is None; two or more `workers` prepare batches ahead of the device.
    So many `steps_per_execution` are sent to the device before the host waits for it; 0 leaves that to the backend.
    """

    encoder: str = "transformer"
    embedding_size: int = 64
    blocks: int = 2
    heads: int = 2
    length: int = 50
    dropout: float = 0.2
    learning_rate: float = 8e-3
    reg: float = 1e-4
    batch_size: int = 128
    epochs: int = 30
    negatives: int = 512
    windows_per_user: int = 20
    repeats: bool = False
    baskets: bool = True
    mask: float = 0.0
    smoothing: float = 0.0
    seed: int = 0
    loss: Loss = "auto"
    calibration: float = 0.75
    values: float = 0.0
    l2: float = 0.0
    adversarial: float = 0.5
    epsilon: float = 0.5
    crop: float = 0.0
    reorder: float = 0.0
    substitute: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    mixed: bool = False
    compiled: bool | None = None
    workers: int = 0
    steps_per_execution: int = 0
    profile: bool = False
    profile_dropout: float = 0.2
    context: bool = False

    def objective(self, items: int, accelerated: bool = False) -> Loss:
        """The loss that `auto` stands for with so many items, on a GPU or without; any other is itself."""
        if self.loss != "auto":
            return self.loss
        return "softmax" if items <= (FULL_SOFTMAX_ON_GPU if accelerated else FULL_SOFTMAX_ITEMS) else "sampled"

    @property
    def reads_profile(self) -> bool:
        """Whether the encoder reads attributes of users, where there are any."""
        return self.profile and self.encoder == "dnn"

    @property
    def reads_time(self) -> bool:
        """Whether the encoder reads the hour and the weekday of the request."""
        return self.context and self.encoder == "dnn"

    @property
    def valued(self) -> bool:
        """Whether values of events are learned."""
        return self.values > 0 or self.loss == "mse"
