"""Types of arrays, named by what an element is; the docstring of a function says the shape and the unit."""

from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.object_]
"""Strings and other Python objects, as pandas columns hold them."""
AnyArray = npt.NDArray[Any]
