"""Random numbers by key and counter: each history draws from a stream of its own, whatever is in the batch with it."""

from typing import Final

import numpy as np
from scipy.special import ndtri

from models.arrays import Float64, Int64

GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
FIRST_FACTOR: Final = np.uint64(0xBF58476D1CE4E5B9)
SECOND_FACTOR: Final = np.uint64(0x94D049BB133111EB)


class RandomStreams:
    """A stream of random numbers for each row, from `keys` int64 [rows] and a seed.

    A number depends on the row's key, the seed, the `step` and the `use` alone (SplitMix64: Steele, Lea and Flood,
    OOPSLA 2014). So results are the same for every batch size, and on every machine.
    """

    def __init__(self, keys: Int64, seed: int) -> None:
        with np.errstate(over="ignore"):
            self._keys = _mixed(keys.astype(np.uint64) + _mixed(np.uint64(seed) * GOLDEN))

    @classmethod
    def from_rng(cls, keys: Int64, rng: np.random.Generator) -> "RandomStreams":
        """Streams whose seed is drawn from `rng`."""
        return cls(keys, int(rng.integers(1 << 62)))

    def __len__(self) -> int:
        return len(self._keys)

    def take(self, rows: Int64) -> "RandomStreams":
        """The streams of the given rows (int64 [n])."""
        streams = RandomStreams.__new__(RandomStreams)
        streams._keys = self._keys[rows]
        return streams

    def uniform(self, step: int, use: int, size: int = 1) -> Float64:
        """float64 [rows, size]: uniform in (0, 1), for the step of a history and what the numbers are used for."""
        with np.errstate(over="ignore"):
            counter = np.uint64(step) * np.uint64(1 << 20) + np.uint64(use)
            own = _mixed(self._keys ^ _mixed(counter * GOLDEN))
            numbers = _mixed(own[:, None] + np.arange(1, size + 1, dtype=np.uint64) * GOLDEN)
        uniform: Float64 = ((numbers >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return uniform

    def normal(self, step: int, use: int, size: int = 1) -> Float64:
        """float64 [rows, size]: from the standard normal distribution."""
        normal: Float64 = ndtri(self.uniform(step, use, size))
        return normal


def _mixed(numbers: np.ndarray | np.uint64) -> np.ndarray:
    mixed = np.asarray(numbers)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * FIRST_FACTOR
    mixed = (mixed ^ (mixed >> np.uint64(27))) * SECOND_FACTOR
    result: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return result
