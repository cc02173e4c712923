"""Gradients of any loss, by TensorFlow or JAX: what `keras.ops` lacks, and all that is written once for each of them.

A loss is a function of a batch (tensors by name) that reads variables; it returns a number and figures by name.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

Loss = Callable[[Mapping[str, Any]], tuple[Any, dict[str, Any]]]


class Update:
    """One step of Adam on `variables` down the gradient of a loss, compiled by the backend.

    `reads`: the other variables that the loss reads. Gradients longer than `clip` in all are shortened to it.
    """

    def __init__(
        self,
        loss: Loss,
        variables: Sequence[keras.Variable],
        reads: Sequence[keras.Variable],
        learning_rate: float,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        clip: float | None = None,
    ) -> None:
        self.loss, self.variables, self.reads = loss, list(variables), list(reads)
        self.optimizer = keras.optimizers.Adam(learning_rate, beta_1, beta_2, global_clipnorm=clip)
        self.optimizer.build(self.variables)
        self._step = _jax_step(self) if keras.backend.backend() == "jax" else _tensorflow_step(self)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """Take the step; the figures of the loss, with `loss` and `gradient-norm`."""
        figures = self._step({name: ops.convert_to_tensor(array) for name, array in batch.items()})
        return {name: float(figure) for name, figure in figures.items()}


def input_gradient(function: Callable[[Any], Any], x: Any) -> Any:
    """float [batch, ...]: the gradient of each row's output by that row of `x`; it can be differentiated again."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(lambda inputs: ops.sum(function(inputs)))(x)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        total = ops.sum(function(x))
    return tape.gradient(total, x)


def _norm(gradients: Sequence[Any]) -> Any:
    return ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))


def _tensorflow_step(update: Update) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    import tensorflow as tf

    def step(batch: Mapping[str, Any]) -> dict[str, Any]:
        with tf.GradientTape() as tape:
            loss, figures = update.loss(batch)
        values = [variable.value for variable in update.variables]
        gradients = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        update.optimizer.apply(gradients, update.variables)
        return {**figures, "loss": loss, "gradient-norm": _norm(gradients)}

    compiled: Callable[[Mapping[str, Any]], dict[str, Any]] = tf.function(step, autograph=False)
    return compiled


def _jax_step(update: Update) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    import jax

    def loss_of(trained: Any, read: Any, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        mapping = [*zip(update.variables, trained, strict=True), *zip(update.reads, read, strict=True)]
        with keras.StatelessScope(state_mapping=mapping):
            return update.loss(batch)

    @jax.jit
    def compiled(trained: Any, read: Any, state: Any, batch: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        (loss, figures), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained, read, batch)
        trained, state = update.optimizer.stateless_apply(state, gradients, trained)
        return trained, state, {**figures, "loss": loss, "gradient-norm": _norm(gradients)}

    def step(batch: Mapping[str, Any]) -> dict[str, Any]:
        optimizer = update.optimizer.variables
        before = ([variable.value for variable in group] for group in (update.variables, update.reads, optimizer))
        trained, state, figures = compiled(*before, batch)
        for variable, value in zip((*update.variables, *optimizer), (*trained, *state), strict=True):
            variable.assign(value)
        return dict(figures)

    return step
