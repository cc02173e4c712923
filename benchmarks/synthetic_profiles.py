"""Synthetic profiles: how near marginals and pairs of attributes are to the real ones.

python -m benchmarks.synthetic_profiles --data FOLDER [--seeds 0,1,2]

Half of the profiles are learned from, the other half is the truth; `real half` is the ceiling. Each
figure is 1 - total variation distance, the mean over attributes (marginals) or pairs of them. `unique returned` is the
share of generated profiles that equal the whole profile of exactly one user learned from.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from models.arrays import Int32
from models.data.profiles import ProfileSchema
from models.synthesizers.profiles import ProfileModel
from models.synthesizers.streams import RandomStreams


def profiles_of(folder: Path, name: str) -> tuple[ProfileSchema, Int32]:
    """The schema of a data set's profiles and everybody's codes int32 [users, attributes]."""
    from stream.sources.named import open_named

    source = open_named(name, folder / "ml-1m" if name == "movielens-1m" else None)
    attributes = source.users["attributes"].to_list()
    known = [{key: value for key, value in (profile or {}).items() if key != "zip"} for profile in attributes]
    schema = ProfileSchema.fit(known)
    codes = schema.encode(known)
    return schema, codes[(codes > 0).any(axis=1)]


def similarity(real: Int32, other: Int32) -> tuple[float, float]:
    """1 - total variation distance: means over attributes, and over pairs of attributes."""
    columns = range(real.shape[1])
    single = [_overlap(real[:, [column]], other[:, [column]]) for column in columns]
    double = [_overlap(real[:, list(pair)], other[:, list(pair)]) for pair in combinations(columns, 2)]
    return float(np.mean(single)), float(np.mean(double))


def _overlap(left: Int32, right: Int32) -> float:
    shares = [pd.DataFrame(codes).value_counts(normalize=True) for codes in (left, right)]
    return float(pd.concat(shares, axis=1).fillna(0.0).min(axis=1).sum())


def unique_returned(learned: Int32, drawn: Int32) -> float:
    """The share of drawn profiles that exactly one of the learned ones equals."""
    real, counts = np.unique(learned, axis=0, return_counts=True)
    single = {tuple(row) for row in real[counts == 1].tolist()}
    return float(np.mean([tuple(row) in single for row in drawn.tolist()]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    options = parser.parse_args()
    print(f"{'data set':18} {'generator':20} {'marginals':>9} {'pairs':>7} {'unique returned':>16}")
    for name in ("complete-journey", "movielens-1m"):
        schema, codes = profiles_of(options.data, name)
        rows: dict[str, list[tuple[float, ...]]] = {}
        for seed in map(int, options.seeds.split(",")):
            order = np.random.default_rng(seed).permutation(len(codes))
            learned, truth = codes[order[::2]], codes[order[1::2]]
            model = ProfileModel()
            model.fit_codes(schema, learned)
            drawn = {
                "real half": learned,
                "Chow-Liu (ours)": model.draw(RandomStreams(np.arange(len(truth), dtype=np.int64), seed)),
            }
            for generator, each in drawn.items():
                rows.setdefault(generator, []).append((*similarity(truth, each), unique_returned(learned, each)))
        for generator, figures in rows.items():
            marginals, pairs, unique = np.mean(figures, axis=0)
            print(f"{name:18} {generator:20} {marginals:9.3f} {pairs:7.3f} {unique:16.3f}")


if __name__ == "__main__":
    main()
