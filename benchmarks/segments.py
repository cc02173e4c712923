"""Whether a blend's weights should differ by users' segments, beside the length of their histories.

python -m benchmarks.segments --data FOLDER [--sets movielens-1m,complete-journey,online-retail,globo] [--seeds 0,1,2]
                              [--shrink 200,1000] [--json]

Blends of counting recommenders with the parameters of the shipped presets, on the tuning cases of each set. Weights are
sought on four fifths of the cases and asked on the rest, five times: by history length alone, as blends have them, and
with a segment's own weights mixed in, n / (n + shrink) for its n users. Intervals are 95%, over users.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.data_sets import DATA_SETS, categories_of, table_of
from models.arrays import Float64, Int64
from models.data.splits import SplitProtocol
from models.domains.preset import preset_of
from models.evaluation import metrics
from models.evaluation.experiment import Experiment, ExperimentPlan
from models.recommenders.base import Recommender
from models.recommenders.blend import bucket_of
from models.recommenders.blend_weights import Evidence, evidence_of, fit_weights, weights_by_group
from models.recommenders.registry import create

MEMBERS: Final = ("personal", "item-knn", "sequential-rules", "ease")
HOMES: Final = {"movielens-1m": "video", "globo": "news"}
SEGMENTS: Final = 20
FEWEST: Final = 30
TRIES: Final = 200
FOLDS: Final = 5


def gathered(data: Path, name: str) -> tuple[Evidence, Int64, dict[str, int]]:
    """What weights are sought on, each case's segment (0: none), and how many cases each segment has."""
    chosen = DATA_SETS[name]
    source = chosen.open(data)
    known = dict(source.users.select("user_id", "segment").drop_nulls().iter_rows())
    plan = ExperimentPlan(SplitProtocol.parse(chosen.protocol), 0, 1, 1.0, 6_000, tested=1)
    experiment = Experiment(table_of(source, chosen.share), plan, categories=categories_of(source) or None)
    side, params = experiment.tuning, preset_of(HOMES.get(name, "shop")).params()
    fitted: dict[str, Recommender] = {}
    for member in MEMBERS:
        if not (member == "personal" and experiment.masked):
            fitted[member] = create(member, params.get(member, {}), experiment.situation, 0)
            fitted[member].fit(side.log)
    targets = [case.targets for case in side.cases]
    evidence = evidence_of(fitted, side.batch, targets, side.barred(experiment.masked))
    labels = [known.get(case.user_id) for case in side.cases]
    names, counts = np.unique([label for label in labels if label], return_counts=True)
    common = np.argsort(-counts, kind="stable")[:SEGMENTS]
    code = {str(names[place]): number for number, place in enumerate(common, 1)}
    sizes = {str(names[place]): int(counts[place]) for place in common}
    return evidence, np.array([code.get(str(label), 0) for label in labels]), sizes


def sought(evidence: Evidence, segments: Int64, shrink: float, seed: int) -> tuple[Float64, Float64]:
    """Weights [buckets, members] by length, and [segments + 1, buckets, members] with each segment's mixed in."""
    rng = np.random.default_rng(seed)
    plain = fit_weights(evidence, rng, TRIES)
    mixed = np.repeat(plain[None], segments.max(initial=0) + 1, axis=0)
    for code in range(1, len(mixed)):
        inside = np.flatnonzero(segments == code)
        if len(inside) >= FEWEST:
            own = weights_by_group(
                evidence.of(inside), np.zeros(len(inside), np.int64), np.zeros(1, np.int64), rng, TRIES
            )[0]
            mixed[code] += len(inside) / (len(inside) + shrink) * (own - plain)
    return plain, mixed


def compared(evidence: Evidence, segments: Int64, shrink: float, seed: int) -> dict[str, Any]:
    """NDCG@10 of both on cases that their weights were not sought on, and the ratio."""
    fold = np.random.default_rng(seed).permutation(len(segments)) % FOLDS
    by_length, by_both = np.zeros(len(segments)), np.zeros(len(segments))
    for number in range(FOLDS):
        learned, held_out = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        plain, mixed = sought(evidence.of(learned), segments[learned], shrink, seed)
        part = evidence.of(held_out)
        buckets = bucket_of(part.lengths)
        by_length[held_out] = part.ndcg(plain[buckets])
        by_both[held_out] = part.ndcg(mixed[np.minimum(segments[held_out], len(mixed) - 1), buckets])
    ratio = metrics.mean_ratio(by_both, by_length, np.random.default_rng(0))
    return {"shrink": shrink, "seed": seed, "length": by_length.mean(), "segment": by_both.mean(), "ratio": ratio}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of all data sets")
    parser.add_argument("--sets", default="movielens-1m,complete-journey,online-retail,globo")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--shrink", default="200,1000", help="users at which a segment's own weights count half")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each row")
    arguments = parser.parse_args()
    for name in arguments.sets.split(","):
        evidence, segments, sizes = gathered(arguments.data, name)
        if not arguments.json:
            print(f"{name}: {len(segments)} cases, {sizes}", flush=True)
        for shrink in (float(value) for value in arguments.shrink.split(",")):
            for seed in (int(seed) for seed in arguments.seeds.split(",")):
                row = {"set": name, "cases": len(segments), **compared(evidence, segments, shrink, seed)}
                figures = f"{row['length']:.4f} -> {row['segment']:.4f}, {row['ratio'][0]:.3f}"
                span = f"[{row['ratio'][1]:.3f}, {row['ratio'][2]:.3f}]"
                line = f"  shrink {shrink:g}, seed {seed}: {figures} {span}"
                print(json.dumps(row) if arguments.json else line, flush=True)


if __name__ == "__main__":
    main()
