"""Durations as people write them: a number and s, m, h or d."""

import re
from typing import Final

UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(text: str) -> float:
    """`90s`, `15m`, `6h`, `7d` in seconds.

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not match:
        raise ValueError(f"{text!r} is no duration; give a number and s, m, h or d, such as 15m")
    return float(match[1]) * UNITS[match[2]]
