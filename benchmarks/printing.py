"""How benchmarks print their figures."""

import json
from collections.abc import Callable
from typing import Any


def print_figures(figures: dict[str, Any], show: Callable[[dict[str, Any]], None], as_json: bool) -> None:
    """Print a table with `show`, or JSON."""
    if as_json:
        print(json.dumps(figures, default=str, indent=2))
    else:
        show(figures)
