"""News in the order of time: recent popularity, tuned recommenders, and both with freshness and live popularity.

`python -m benchmarks.news --folder GLOBO` takes a seeded share of the readers of Globo's clicks. The last day of the
data is tested once; the day before it chooses half-lives and the weight of live popularity. Before each asked click
everything earlier is known; releases are made anew every hour.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from models.domains.preset import preset_of
from models.evaluation.progressive import LogReplay, ProgressiveRanks, ReplayWindow, ScoreMix, mean_interval, mean_ratio
from models.recommenders.base import Recommender, TuningContext
from models.recommenders.registry import create
from serving.commands.progress import training
from stream.sources.globo import open_globo

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
DENSE: Final = 0.9995
"""The last clicks of the set are a thin tail over four weeks: the replay ends where this share of clicks has come."""
LIVE: Final = tuple(minutes * MINUTE for minutes in (5, 10, 20, 40, 80, 160, 320))
WEIGHTS: Final = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
AGES: Final = (None, 12 * HOUR, DAY, 2 * DAY, 4 * DAY, 8 * DAY)
Make = Callable[[], Recommender] | None


def frame_of(folder: Path, share: float, seed: int) -> pd.DataFrame:
    """A share of the readers, drawn with the seed: user_id, item_id, kind, at, in time order."""
    events = open_globo(folder).events.select("user_id", "item_id", "kind", "at").to_pandas()
    users = np.sort(events["user_id"].unique())
    kept = np.random.default_rng(seed).choice(users, round(share * len(users)), replace=False)
    return events[events["user_id"].isin(set(kept))]


def measure(
    folder: Path, share: float = 0.1, seed: int = 0, most: int = 4_000, names: Sequence[str] = ()
) -> dict[str, Any]:
    """The table's rows, and what the day before the test chose."""
    frame = frame_of(folder, share, seed)
    replay = LogReplay(frame)
    stop = int(frame["at"].quantile(DENSE, interpolation="lower"))
    tuning = ReplayWindow(stop - 2 * DAY, stop - DAY, HOUR, most // 2, seed)
    test = ReplayWindow(stop - DAY, stop, HOUR, most, seed)
    params = preset_of("news").params()
    situation = TuningContext(repeats=False)
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    with training() as progress:
        live = _best(replay.run(tuning, None, [ScoreMix(None, weight, 1.0) for weight in LIVE]))
        alone = _asked(replay, test, None, [live], progress, "live")
        opponent = alone.metrics(live)[0]
        rows.append(_row("recent popularity, live", live, alone, None, seed))
        for name in names:

            def fresh(name: str = name) -> Recommender:
                return create(name, params.get(name, {}), situation, seed)

            plain, chosen = ScoreMix(), _chosen(replay, tuning, fresh, live, progress, name)
            ranks = _asked(replay, test, fresh, [plain, *chosen], progress, name)
            labels = ("", " + freshness", " + live", " + freshness + live")
            rows += [
                _row(name + label, way, ranks, opponent, seed)
                for label, way in zip(labels, [plain, *chosen], strict=True)
            ]
    cases = len(replay.sampled_events(test))
    facts = {"clicks": len(frame), "readers": int(frame["user_id"].nunique()), "items": len(replay.item_ids)}
    return {**facts, "cases": cases, "seed": seed, "seconds": time.monotonic() - started, "rows": rows}


def _chosen(
    replay: LogReplay, window: ReplayWindow, fresh: Make, live: ScoreMix, progress: Any, name: str
) -> list[ScoreMix]:
    """On the tuning day: the best prior alone, the best live weight alone, and the best of both."""
    half_life = live.live_half_life_ms
    ages = [ScoreMix(age) for age in AGES if age is not None]
    shares = [ScoreMix(None, half_life, weight) for weight in WEIGHTS]
    both = [ScoreMix(age, half_life, weight) for age in AGES for weight in WEIGHTS]
    ranks = _asked(replay, window, fresh, [*ages, *shares, *both], progress, f"{name}, tuning")
    return [_best(ranks, ways) for ways in (ages, shares, both)]


def _asked(
    replay: LogReplay, window: ReplayWindow, fresh: Make, ways: Sequence[ScoreMix], progress: Any, stage: str
) -> ProgressiveRanks:
    return replay.run(window, fresh, list(dict.fromkeys(ways)), lambda done: progress(stage, done, {}))


def _best(ranks: ProgressiveRanks, ways: Sequence[ScoreMix] | None = None) -> ScoreMix:
    return max(ways or list(ranks.ranks), key=lambda way: float(ranks.metrics(way)[0].mean()))


def _row(name: str, way: ScoreMix, ranks: ProgressiveRanks, opponent: np.ndarray | None, seed: int) -> dict[str, Any]:
    ndcg, hits = ranks.metrics(way)
    rng = np.random.default_rng(seed)
    return {
        "name": name,
        "ndcg@10": float(ndcg.mean()),
        "ndcg@10 interval": mean_interval(ndcg, ranks.users, rng),
        "against live": mean_ratio(ndcg, opponent, ranks.users, rng) if opponent is not None else None,
        "hr@10": float(hits.mean()),
        "hr@10 interval": mean_interval(hits, ranks.users, rng),
        "half life h": way.half_life_ms / HOUR if way.half_life_ms else None,
        "live minutes": way.live_half_life_ms / MINUTE if way.live_half_life_ms else None,
        "live weight": way.live,
    }


def show(figures: dict[str, Any]) -> None:
    """The table, in Markdown."""
    print(f"{figures['clicks']:,} clicks of {figures['readers']:,} readers on {figures['items']:,} articles;")
    print(f"{figures['cases']:,} of the last day's asked for, seed {figures['seed']}, {figures['seconds']:.0f} s\n")
    print("| | NDCG@10 | against recent popularity, live | HR@10 | prior | live |")
    print("|---|---|---|---|---|---|")
    for row in sorted(figures["rows"], key=lambda row: -row["ndcg@10"]):
        ndcg, hits = (
            f"{row[name]:.4f} [{row[f'{name} interval'][0]:.4f}, {row[f'{name} interval'][1]:.4f}]"
            for name in ("ndcg@10", "hr@10")
        )
        prior = f"{row['half life h']:g} h" if row["half life h"] else ""
        live = f"{row['live weight']:g} of {row['live minutes']:g} min" if row["live minutes"] else ""
        ratio = "{:.3f} [{:.3f}, {:.3f}]".format(*row["against live"]) if row["against live"] else ""
        print(f"| {row['name']} | {ndcg} | {ratio} | {hits} | {prior} | {live} |")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.news", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the folder of Globo's clicks")
    parser.add_argument("--share", type=float, default=0.1, help="share of the readers")
    parser.add_argument("--seed", type=int, default=0, help="of the readers and of the asked clicks")
    parser.add_argument("--most", type=int, default=4_000, help="clicks that are asked for on the last day")
    parser.add_argument("--recommenders", default="popularity,item-knn,sequential-rules", help="names with commas")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    names = [recommender for recommender in chosen.recommenders.split(",") if recommender]
    figures = measure(chosen.folder, chosen.share, chosen.seed, chosen.most, names)
    if chosen.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
