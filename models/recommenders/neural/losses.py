"""What the encoders are trained for: losses of the next item, of its value, and their adversary. `keras.ops` only.

Each loss takes logits and gives one number for each place; its gradient by the logits is known in closed form, and that
is all that the adversary needs: TensorFlow and JAX run it alike, without a gradient inside a gradient.
"""

from typing import Any, Final

from keras import ops

FAR: Final = -1e9
SMALL: Final = 1e-12
LEAST_REST: Final = 1e-6
"""Rounding leaves no smaller probability of all but a few items."""


def softmax_loss(logits: Any, column: Any, smoothing: float = 0.0) -> Any:
    """Cross-entropy over all items: logits float [places, items], column int [places] -> float [places].

    `smoothing` of the target is spread evenly over all items (Szegedy et al., CVPR 2016, section 7).
    """
    whole = ops.logsumexp(logits, axis=-1)
    losses = whole - ops.squeeze(ops.take_along_axis(logits, column[:, None], axis=1), axis=1)
    if smoothing:
        losses = (1 - smoothing) * losses + smoothing * (whole - ops.mean(logits, axis=-1))
    return losses


def sampled_loss(positive: Any, others: Any) -> Any:
    """Cross-entropy over the target and sampled items: wanted float [places], others [places, negatives] -> [places].

    The logits are corrected by the caller: each less the log of its item's chance to be drawn (Yi et al., RecSys 2019,
    section 4).
    """
    return ops.logaddexp(ops.logsumexp(others, axis=-1), positive) - positive


def gbce_loss(positive: Any, others: Any, beta: float) -> Any:
    """Generalized binary cross-entropy: -(log(sigmoid(s+)^beta) + sum log(1 - sigmoid(s-))) over 1 + negatives.

    wanted float [places], others [places, negatives] -> [places] (Petrov & Macdonald, RecSys 2023, equation 13).
    """
    whole = beta * ops.softplus(-positive) + ops.sum(ops.softplus(others), axis=-1)
    return whole / (1.0 + ops.cast(ops.shape(others)[-1], "float32"))


def beta_of(items: int, negatives: int, calibration: float) -> float:
    """gBCE's power of the positive: with t = 1 the scores are calibrated as the softmax's, with 0 it is plain BCE.

    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha), alpha = negatives / (items - 1) (the same, equation 21).
    """
    alpha = min(1.0, negatives / max(1, items - 1))
    return alpha * (calibration * (1 - 1 / alpha) + 1 / alpha)


def distillation_loss(logits: Any, items: Any, shares: Any, rest: Any, temperature: float) -> Any:
    """Divergence of a teacher's distribution from the student's: logits float [rows, items] -> float [rows].

    The teacher's best items by number (`items` int [rows, n], 0 for none) with their probabilities `shares`, and the
    probability `rest` [rows] of all others together, which the student may spread as it likes. Both are at the
    temperature, and the square of it keeps gradients as large (Hinton, Vinyals & Dean 2015, section 2).
    """
    logits = logits / temperature
    logs = logits - ops.logsumexp(logits, axis=-1, keepdims=True)
    best = ops.take_along_axis(logs, ops.maximum(items - 1, 0), axis=1)
    others = 1.0 - ops.sum(ops.exp(best) * ops.cast(ops.greater(items, 0), "float32"), axis=-1)
    divergence = ops.sum(shares * (ops.log(ops.maximum(shares, SMALL)) - best), axis=-1)
    divergence = divergence + rest * (ops.log(ops.maximum(rest, SMALL)) - ops.log(ops.maximum(others, LEAST_REST)))
    return temperature**2 * divergence


def value_loss(predicted: Any, value: Any, there: Any) -> Any:
    """Mean squared error where there is a value: three times float [places], `there` 0 or 1 -> one number."""
    return ops.sum(ops.square(predicted - value) * there) / ops.maximum(ops.sum(there), 1.0)


def adversarial_step(residual: Any, hidden: Any, epsilon: float) -> Any:
    """Where items' vectors move to hurt the loss most: float [items, size], each row `epsilon` long, or zero.

    With logits hidden . vector the loss's gradient by item j's vector is the sum over places of residual[place, j] *
    hidden[place], where `residual` [places, items] is the loss's gradient by the logits: softmax less one-hot for
    cross-entropy, sigmoid for gBCE's negatives. The step is that of He et al., SIGIR 2018 (APR), equation 7, for the
    vectors as they are compared with; what the history's own vectors would add through the encoder is left out.
    """
    slope = ops.matmul(ops.transpose(residual), hidden)
    length = ops.sqrt(ops.sum(ops.square(slope), axis=-1, keepdims=True) + SMALL)
    return ops.stop_gradient(epsilon * slope / length)
