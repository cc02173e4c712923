"""Log lines that a process repeats are passed on a few times a minute, and counted after that."""

import re
from typing import Final

WINDOW_S: Final = 60.0
SHOWN: Final = 3
MOST_LINES: Final = 1_000
"""Different lines that are remembered; then counting starts again."""
_NUMBER: Final = re.compile(r"\d+")


class RepeatedLines:
    """Lines are the same if they differ in numbers only: times, ports, offsets."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[float, int]] = {}

    def pass_on(self, line: str, now_s: float) -> list[str]:
        """What is to be logged for this line: it, nothing, or first how often it was left out in the last minute."""
        key = _NUMBER.sub("#", line)
        since, count = self._counts.get(key, (now_s, 0))
        if now_s - since >= WINDOW_S:
            left_out = count - SHOWN
            self._counts[key] = (now_s, 1)
            return [f"(this line was left out {left_out:,} times)", line] if left_out > 0 else [line]
        if key not in self._counts and len(self._counts) >= MOST_LINES:
            self._counts.clear()
        self._counts[key] = (since, count + 1)
        return [line] if count < SHOWN else []
