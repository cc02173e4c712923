"""What synthesizers cost and how well they predict: each registered one, fitted on a real set within a time budget.

python -m benchmarks.synthesizers --data FOLDER [--sets beauty,movielens-1m] [--names markov,autoregressive,...]
                                  [--joint] [--seconds 300] [--users 1000] [--most-users N] [--seed 0] [--json]

A tenth of the users is held out whole. Columns: seconds of the fit, and of the processor; histories sampled per second;
the mean log-likelihood of a held-out user's event, given those before it, less Markov's; NDCG@10 of `expected` for the
next event of held-out users after 1, 2 and 3 events, and for the one after the next after 1 (known items are masked);
for those that run live, milliseconds from a first event to 20 sampled events in one session (`live`). `items`,
`transitions` (between groups of items), `recall`: 1 where sampled histories are as held-out ones
(`models.synthesizers.fidelity.compare`). A name may carry parameters: `autoregressive:cell=transformer`. A set is a
name of `benchmarks.data_sets`, or NAME:PATH of a public one, of at most `--most-users` users.

`--joint` compares, instead of `--names`, a mixture of small networks that are fitted one after another with the same
networks trained together, without and with feature matching: a row for the mixture and one for each of its members.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TextIO

import numpy as np
import pandas as pd

from benchmarks.data_sets import opened, users_of
from benchmarks.printing import print_figures
from features.activity import History
from models.arrays import Float32, Int32
from models.data.interactions import Interactions
from models.synthesizers import registry
from models.synthesizers.base import MAX_EVENTS, Synthesizer, SynthesizerContext
from models.synthesizers.conditions import ANYTHING, Conditions
from models.synthesizers.fidelity import Reference, compare
from models.synthesizers.histories import Histories
from models.synthesizers.mixture import Mixture

HELD_OUT: Final = 0.1
KNOWN: Final = 3
CUTOFF: Final = 10
SAMPLED: Final = 256
LIVE_EVENTS: Final = 20
LIVE_REPEATS: Final = 30
SMALL: Final[dict[str, Any]] = {"embedding_size": 32, "window": 16}
SMALL_MEMBERS: Final[dict[str, dict[str, Any]]] = {
    "autoregressive": SMALL,
    "vae": {**SMALL, "draws": 4},
    "gan": {"embedding_size": 32, "latent_size": 16, "length": 8, "units": 64, "rounds": 20},
}
SEPARATE: Final[dict[str, Any]] = {"members": list(SMALL_MEMBERS), "member_params": SMALL_MEMBERS}
MIXTURES: Final[dict[str, dict[str, Any]]] = {
    "separate": {**SEPARATE, "share_embeddings": False},
    "handed on": SEPARATE,
    "joint, no matching": {**SEPARATE, "joint": True, "matching": 0.0},
    "joint": {**SEPARATE, "joint": True},
}


def split_users(frame: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The events of the users that are learned from, and of those held out."""
    users = np.sort(frame["user_id"].unique())
    held = np.random.default_rng(seed).choice(users, round(HELD_OUT * len(users)), replace=False)
    apart = frame["user_id"].isin(held)
    return frame[~apart].reset_index(drop=True), frame[apart].reset_index(drop=True)


def prefix(history: History, events: int) -> History:
    """The first events of a user."""
    return History(*(column[:events] for column in (history.items, history.kinds, history.times, history.values)))


def ndcg(shares: Float32, targets: Int32, known: list[list[int]]) -> float:
    """The mean NDCG@10 of one target each, with known items masked."""
    gains = []
    for row, target, masked in zip(shares, targets.tolist(), known, strict=True):
        row[masked] = -1.0
        rank = int((row > row[target]).sum())
        gains.append(1 / np.log2(rank + 2) if rank < CUTOFF and target not in masked else 0.0)
    return float(np.mean(gains))


def predictive(synthesizer: Synthesizer, held_out: Histories, users: int) -> dict[str, float]:
    """NDCG@10 at the next event after 1, 2, 3 events, and at the one after it after 1."""
    rows = np.flatnonzero(held_out.lengths > KNOWN)[:users]
    histories = [held_out.history(int(row), synthesizer.vocabulary) for row in rows]
    figures = {}
    for known, steps in ((1, 1), (2, 1), (3, 1), (1, 2)):
        events = [Conditions(first=prefix(history, known)) for history in histories]
        conditions = [condition.only(synthesizer.supports) for condition in events]
        shares = synthesizer.expected(conditions, steps)
        starts = held_out.starts[rows]
        masked = [held_out.items[start : start + known].tolist() for start in starts.tolist()]
        ahead = "" if steps == 1 else f" {steps} ahead"
        figures[f"k={known}{ahead}"] = ndcg(shares, held_out.items[starts + known + steps - 1], masked)
    return figures


def live(synthesizer: Synthesizer, event: History) -> float | None:
    """Milliseconds from a first event to so many sampled events, by the exported network; None without an export."""
    write = getattr(synthesizer, "write_onnx", None)
    if write is None:
        return None
    with TemporaryDirectory() as folder:
        write(Path(folder))
        exported = type(synthesizer).load_onnx(Path(folder))  # type: ignore[attr-defined]  # where write_onnx is
        condition = Conditions(first=event, events=LIVE_EVENTS)
        times = []
        for seed in range(LIVE_REPEATS):
            began = time.perf_counter()
            exported.sample([condition], 1, np.random.default_rng(seed))
            times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def fitted(
    name: str, params: Mapping[str, Any], train: Interactions, options: argparse.Namespace
) -> tuple[Synthesizer, dict[str, float]]:
    """A fitted synthesizer, and what the fit took."""
    synthesizer = registry.create(name, params, SynthesizerContext(options.seed, options.seconds))
    began, worked = time.perf_counter(), time.process_time()
    synthesizer.fit(train, show_progress)
    took = {"fit_seconds": time.perf_counter() - began, "fit_cpu_seconds": time.process_time() - worked}
    return synthesizer, took


def measured(
    synthesizer: Synthesizer, train: Interactions, held_out: Histories, options: argparse.Namespace
) -> dict[str, Any]:
    """The figures of one fitted synthesizer."""
    began = time.perf_counter()
    synthesizer.sample([ANYTHING], SAMPLED, np.random.default_rng(options.seed))
    figures: dict[str, Any] = {"samples_per_second": SAMPLED / (time.perf_counter() - began)}
    part = held_out.take(np.arange(min(options.users, len(held_out))))
    logs = synthesizer.log_prob(part)
    figures["log_likelihood"] = float(logs.sum()) / len(part.items) if logs is not None else None
    figures |= predictive(synthesizer, held_out, options.users)
    figures |= similarity(synthesizer, part, train, options.seed)
    figures["live_ms"] = live(synthesizer, prefix(held_out.history(0, train.vocabulary), 1))
    return figures | {f"fit {key}": value for key, value in getattr(synthesizer, "figures", {}).items()}


def similarity(synthesizer: Synthesizer, real: Histories, train: Interactions, seed: int) -> dict[str, float]:
    """How close histories of the same lengths come to real ones."""
    conditions = [Conditions(events=int(min(length, MAX_EVENTS))) for length in real.lengths]
    sampled = synthesizer.sample(conditions, 1, np.random.default_rng(seed))
    figures = compare(real, sampled, Reference.fit(train, seed))
    return {
        "items": figures["items"],
        "transitions": figures["group-transitions"],
        "recall": figures["recall"],
    }


def named_rows(train: Interactions, held_out: Histories, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each of `--names`."""
    rows = []
    for text in options.names.split(","):
        name, params = parsed(text)
        synthesizer, took = fitted(name, params, train, options)
        rows.append({"name": text, **took, **measured(synthesizer, train, held_out, options)})
        print_row(rows[-1], sys.stderr)
    return rows


def table_and_categories(name: str, options: argparse.Namespace) -> tuple[pd.DataFrame, dict[str, str]]:
    """The interactions of a set, and the categories of its items, where it is one of the benchmarks'."""
    if ":" in name:
        return users_of(name, options.most_users), {}
    frame, categories, _ = opened(options.data, name)
    return frame, categories


def mixture_rows(train: Interactions, held_out: Histories, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each way to fit a mixture, and for each member of it."""
    rows: list[dict[str, Any]] = []
    for label, params in MIXTURES.items():
        mixture, took = fitted("mixture", params, train, options)
        assert isinstance(mixture, Mixture)  # of the registry
        for name, member in {"mixture": mixture, **dict(zip(SMALL_MEMBERS, mixture.members, strict=True))}.items():
            rows.append({"name": f"{name}, {label}", **took, **measured(member, train, held_out, options)})
            print_row(rows[-1], sys.stderr)
        rows[-1]["segments"] = mixture.report()
        rows[-1]["rounds"] = mixture.joint_training
    return rows


def show_progress(share: float, figures: Mapping[str, float]) -> None:
    """Progress of a fit on standard error, where held-out users were looked at."""
    if {"held_out_log_likelihood", "log-likelihood", "held-out-loss", "fidelity"} & set(figures):
        text = ", ".join(f"{key} {value:.4f}" for key, value in figures.items())
        print(f"    {share:.0%} {text}", file=sys.stderr, flush=True)


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """A name and its parameters, each value read as JSON where it is."""
    name, _, rest = text.partition(":")
    pairs = [pair.split("=", 1) for pair in rest.split(";") if pair]
    return name, {key: value_of(value) for key, value in pairs}


def value_of(text: str) -> Any:
    """A parameter's value: JSON, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def show(figures: dict[str, Any]) -> None:
    """A row for each synthesizer of a set."""
    base = next((row.get("log_likelihood") for row in figures["rows"] if row["name"] == "markov"), None)
    print(f"{figures['set']}: {figures['users']} users to learn from, {figures['held_out']} held out")
    for row in figures["rows"]:
        print_row(row, sys.stdout, base)


def print_row(row: dict[str, Any], file: TextIO, base: float | None = None) -> None:
    """One synthesizer's figures; `base`: Markov's log-likelihood."""
    own = row["log_likelihood"]
    text = f"{own:.3f}" if own is not None else "-"
    gain = f"{text} ({own - base:+.3f})" if own is not None and base is not None else text
    scores = "  ".join(f"{key} {value:.4f}" for key, value in row.items() if key.startswith("k="))
    wait = f"{row['live_ms']:.1f} ms" if row["live_ms"] is not None else "-"
    times = f"fit {row['fit_seconds']:.0f} s ({row['fit_cpu_seconds']:.0f} s CPU)  {row['samples_per_second']:.0f}/s"
    close = "  ".join(f"{key} {row[key]:.3f}" for key in ("items", "transitions", "recall"))
    text = f"  {row['name']:36} {times}  log-likelihood {gain}  NDCG@10 {scores}  {close}  live {wait}"
    print(text, file=file, flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of all data sets")
    parser.add_argument("--sets", default="beauty,movielens-1m")
    parser.add_argument("--names", default=",".join(registry.REGISTRY))
    parser.add_argument("--seconds", type=float, default=300.0, help="what a fit may take")
    parser.add_argument("--users", type=int, default=1_000, help="held-out users that are asked, at most")
    parser.add_argument("--most-users", type=int, default=2_000, help="users of a set that is given as NAME:PATH")
    parser.add_argument("--joint", action="store_true", help="compare ways to fit a mixture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name in options.sets.split(","):
        frame, categories = table_and_categories(name, options)
        known, unseen = split_users(frame, options.seed)
        train = Interactions.from_frame(known, categories=categories)
        held_out = Histories.from_interactions(Interactions.from_frame(unseen, train.vocabulary))
        rows = (mixture_rows if options.joint else named_rows)(train, held_out, options)
        figures: dict[str, Any] = {"set": name, "users": train.user_count, "held_out": len(held_out), "rows": rows}
        print_figures(figures, show, options.json)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
