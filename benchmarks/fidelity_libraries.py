# /// script
# requires-python = ">=3.11"
# dependencies = ["sdmetrics==0.32.0", "syntheval==1.7.3", "pandas<3", "pyarrow"]
# ///
"""Whether SDMetrics and SynthEval agree with the figures of `benchmarks.fidelity`, in an environment of their own.

uv run --no-project benchmarks/fidelity_libraries.py OUT [--sets movielens-1m,beauty]

Reads OUT/SET/tables and OUT/SET/NAME.json, writes OUT/SET/libraries.json: every figure of the libraries, and for each
of ours the rank correlation (Spearman) over synthesizers with theirs, all turned so that more is more like real users.
Three figures have one definition in both, so their largest difference is given. What compares users reads a table of
theirs with a row for each user: events, distinct items, repeats, gaps, span, hours, and popularity of the items.
"""

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

LONGEST = 64
"""As in `benchmarks.fidelity`, longer histories count as one length."""
SAME = ("items", "pairs", "transitions")
"""Ours whose definition is that of the library's figure."""
PAIRS = (
    ("items", "sdmetrics", "TVComplement of items"),
    ("pairs", "sdmetrics", "TVComplement of pairs"),
    ("transitions", "sdmetrics", "ContingencySimilarity"),
    ("lengths", "sdmetrics", "KSComplement of lengths"),
    ("gaps", "sdmetrics", "KSComplement of gaps"),
    ("coverage", "sdmetrics", "CategoryCoverage"),
    ("features AUC", "sdmetrics", "LogisticDetection"),
    ("features AUC", "syntheval", "pMSE"),
    ("features AUC", "syntheval", "NNAA"),
    ("sequence AUC", "syntheval", "pMSE"),
    ("strongest attack", "sdmetrics", "DCROverfittingProtection"),
    ("strongest attack", "syntheval", "MIA macro F1"),
    ("strongest attack", "syntheval", "privacy loss of NNAA"),
)


def ours(path: Path) -> dict[str, float] | None:
    """Our figures of a synthesizer; None where it failed."""
    results = json.loads(path.read_bytes())["results"]
    if results is None:
        return None
    figures = {name: results["fidelity"][name] for name, _, _ in PAIRS if name in results["fidelity"]}
    figures["features AUC"] = 1 - results["feature_auc"]
    if results["sequence_auc"] is not None:
        figures["sequence AUC"] = 1 - results["sequence_auc"]
    figures["strongest attack"] = 1 - max(attack["auc"] for attack in results["attacks"])
    return figures


def steps(frame: pd.DataFrame) -> pd.DataFrame:
    """Each event with the next one of its user: item_id, next_id, gap (logarithm of seconds)."""
    users = frame.groupby("user_id", sort=False)
    following, gap = users["item_id"].shift(-1), users["at"].shift(-1) - frame["at"]
    table = pd.DataFrame({"item_id": frame["item_id"], "next_id": following, "gap": np.log1p(gap / 1000)})
    return table.dropna().reset_index(drop=True)


def pairs(frame: pd.DataFrame) -> pd.Series:
    """The unordered pairs of different items of each user, as text."""
    parts = []
    for _, items in frame.groupby("user_id", sort=False)["item_id"]:
        distinct = np.sort(items.unique())
        left, right = np.triu_indices(len(distinct), 1)
        parts.append(pd.Series(distinct[left]) + "|" + pd.Series(distinct[right]))
    return pd.concat(parts, ignore_index=True)


def users_of(frame: pd.DataFrame, popularity: pd.Series) -> pd.DataFrame:
    """A row of figures for each user."""
    users = frame.assign(popularity=frame["item_id"].map(popularity).fillna(0)).groupby("user_id", sort=False)
    gaps = np.log1p(users["at"].diff().fillna(0) / 1000).groupby(frame["user_id"], sort=False)
    hours = (frame["at"] // 3_600_000 % 24).groupby(frame["user_id"], sort=False)
    events, distinct = users.size(), users["item_id"].nunique()
    columns = {
        "events": events,
        "distinct": distinct,
        "repeats": 1 - distinct / events,
        "gap": gaps.mean(),
        "gap_spread": gaps.std().fillna(0),
        "span": np.log1p((users["at"].max() - users["at"].min()) / 1000),
        "hour": hours.mean(),
        "popularity": np.log1p(users["popularity"].mean()),
        "least_popularity": np.log1p(users["popularity"].min()),
    }
    return pd.DataFrame(columns).astype(float).reset_index(drop=True)


def sdmetrics_figures(real: pd.DataFrame, other: pd.DataFrame) -> dict[str, float]:
    """SDMetrics over events."""
    from sdmetrics.column_pairs import ContingencySimilarity
    from sdmetrics.single_column import CategoryCoverage, KSComplement, TVComplement

    left, right = steps(real), steps(other)
    lengths = [frame.groupby("user_id").size().clip(upper=LONGEST) for frame in (real, other)]
    return {
        "TVComplement of items": TVComplement.compute(real["item_id"], other["item_id"]),
        "TVComplement of pairs": TVComplement.compute(pairs(real), pairs(other)),
        "ContingencySimilarity": ContingencySimilarity.compute(
            left[["item_id", "next_id"]], right[["item_id", "next_id"]]
        ),
        "KSComplement of lengths": KSComplement.compute(*lengths),
        "KSComplement of gaps": KSComplement.compute(left["gap"], right["gap"]),
        "CategoryCoverage": CategoryCoverage.compute(real["item_id"], other["item_id"]),
    }


def sdmetrics_user_figures(tables: dict[str, pd.DataFrame], other: pd.DataFrame) -> dict[str, float]:
    """SDMetrics over the table of users: a detector, and closeness to users that were learned from."""
    from sdmetrics.single_table import DCROverfittingProtection, LogisticDetection

    table = {"columns": {name: {"sdtype": "numerical"} for name in other.columns}}
    metadata = {"tables": {"users": table}}
    closeness = DCROverfittingProtection.compute(tables["learned"], other, tables["ceiling"], metadata, "users")
    detected = LogisticDetection.compute(tables["real"], other, metadata, "users")
    return {"LogisticDetection": detected, "DCROverfittingProtection": closeness}


def syntheval_figures(tables: dict[str, pd.DataFrame], other: pd.DataFrame) -> dict[str, float]:
    """SynthEval over the table of users, turned so that more is better."""
    from syntheval import SynthEval

    quiet: dict[str, Any] = {"verbose": False, "enable_plots": False, "console": "off", "show_warnings": False}
    fresh = SynthEval(tables["real"], cat_cols=[], nn_distance="euclid", **quiet)
    fresh.evaluate(other, p_mse={}, nnaa={})
    known = SynthEval(tables["learned"], tables["ceiling"], cat_cols=[], nn_distance="euclid", **quiet)
    known.evaluate(other, mia={}, nnaa={})
    return {
        "pMSE": 1 - 4 * fresh._raw_results["p_mse"]["avg pMSE"],
        "NNAA": 1 - fresh._raw_results["nnaa"]["avg"],
        "MIA macro F1": 1 - known._raw_results["mia"]["MIA macro F1"],
        "privacy loss of NNAA": -known._raw_results["nnaa"]["priv_loss"],
    }


def compared(folder: Path) -> dict[str, Any]:
    """Our figures and the libraries' of every synthesizer of a set, and how well they agree."""
    frames = {path.stem: pd.read_parquet(path) for path in sorted((folder / "tables").glob("*.parquet"))}
    popularity = frames["learned"]["item_id"].value_counts()
    users = {name: users_of(frame, popularity) for name, frame in frames.items()}
    figures: dict[str, Any] = {}
    for name in sorted(frames.keys() - {"real", "learned", "ceiling"}):
        path = folder / f"{name}.json"
        own = ours(path) if path.is_file() else None
        if own is None:
            continue
        np.random.seed(0)  # noqa: NPY002 - the libraries draw from it
        theirs = sdmetrics_figures(frames["real"], frames[name]) | sdmetrics_user_figures(users, users[name])
        theirs |= syntheval_figures(users, users[name])
        figures[name] = {"ours": own, "theirs": {key: float(value) for key, value in theirs.items()}}
    return {"agreement": agreement(figures), "figures": figures}


def agreement(figures: dict[str, Any]) -> list[list[str]]:
    """For each pair of figures: ours, the library, theirs, rank correlation, synthesizers, largest difference."""
    rows = []
    for own, library, other in PAIRS:
        values = [(row["ours"][own], row["theirs"][other]) for row in figures.values() if own in row["ours"]]
        if len(values) < 3:
            continue
        left, right = np.array(values).T
        same = len(set(left)) == 1 or len(set(right)) == 1
        correlation = "one value" if same else f"{spearmanr(left, right).statistic:.2f}"
        apart = f"{np.abs(left - right).max():.1e}" if own in SAME else ""
        rows.append([own, library, other, correlation, str(len(values)), apart])
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder that benchmarks.fidelity wrote")
    parser.add_argument("--sets", help="some of the sets in it")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    names = (
        options.sets.split(",") if options.sets else sorted(path.parent.name for path in options.out.glob("*/set.json"))
    )
    for name in names:
        result = compared(options.out / name)
        (options.out / name / "libraries.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
        for row in result["agreement"]:
            print(name, *row, sep="  ")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
