"""How benchmarks print their figures."""

import json
import time
from collections.abc import Callable
from typing import Any


def print_figures(figures: dict[str, Any], show: Callable[[dict[str, Any]], None], as_json: bool) -> None:
    """Print a table with `show`, or JSON."""
    if as_json:
        print(json.dumps(figures, default=str, indent=2))
    else:
        show(figures)


def print_stage(stage: str, done: float, _figures: dict[str, float]) -> None:
    """Print a completed stage of an opponent's fit, with the time."""
    if done >= 1:
        print(f"  {time.strftime('%H:%M:%S')} {stage}", flush=True)
