"""kill -9 at random moments under load, then a count: every acknowledged event is in the features exactly once.

`python -m benchmarks.kill [--times 200] [--seed 0] [--victims NAME ...] [--json]`; see `testing.random_kills`.
"""

import argparse
import json
import sys
from typing import Any

from testing.random_kills import kill_at_random
from testing.system import PARTS


def show(figures: dict[str, Any]) -> None:
    """Print the count."""
    kills = ", ".join(f"{name} {number}" for name, number in sorted(figures["kills"].items()))
    print(f"killed {sum(figures['kills'].values())} times in {figures['seconds']:.0f} s ({kills})")
    print(f"acknowledged events           {figures['acknowledged']:>9,}")
    print(f"messages in the log           {figures['in_the_log']:>9,}  (batches sent again: {figures['sent_again']})")
    print(f"lost                          {figures['lost']:>9,}")
    print(f"counted twice                 {figures['counted_twice']:>9,}")
    print(f"rows unlike a rebuild's       {figures['rows_unlike_rebuild']:>9,} of {figures['rows']:,}")
    print(f"popularity unlike a rebuild's {len(figures['popularity_unlike_rebuild']):>9,} of 4")
    print(f"ended without being killed    {sum(figures['ended_unkilled'].values()):>9,}")
    print(f"archive equals the log        {'no' if figures['archive_unlike_log'] else 'yes':>9}")
    if "kept" in figures:
        print(f"kept for a look: {figures['kept']}")


def main(arguments: list[str] | None = None) -> int:
    """Print the count; 1 where something was lost, counted twice, or unlike a rebuild."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--victims", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    figures = kill_at_random(options.times, options.seed, options.victims)
    print(json.dumps(figures, indent=2)) if options.json else show(figures)
    return 1 if "kept" in figures else 0


if __name__ == "__main__":
    sys.exit(main())
