"""A candidate before the gate: asked the held-out cases beside the release that serves, its look-ups timed.

Nobody is judged by what it has seen. The candidate's NDCG is that of a fit that ends before the held-out window. The
serving release is asked as it serves where its data end before the window too; otherwise as of the cut: its counting
members are fitted anew, with their own parameters, on what came before the window, and its networks are asked as they
are, for they learned only from what came before a window of their own, which was earlier.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pandas as pd

from features.activity import History
from models.arrays import Float32, Float64, Int64
from models.data import splits
from models.data.interactions import Log
from models.data.splits import Case
from models.errors import ReleaseError
from models.evaluation import metrics
from models.recommenders.base import Recommender, Vocabulary
from models.recommenders.blend import members
from models.recommenders.registry import NEURAL
from models.recommenders.top_k import top_k
from models.releases import gate, release_store
from models.releases.gate import GateReport, GateThresholds, HoldoutAnswers, HoldoutCases
from models.releases.manifest import DEFAULT_HISTORY_LENGTH, ITEM_KNN, Manifest
from models.releases.release import Release

WITNESSES: Final = 5_000
"""Users whose histories say which items go together."""
TIMED: Final = 100
ATTEMPTS: Final = 5
"""A look-up's time is the best of so many: what else the machine does is not the release's fault."""
COVERAGE_OF_COUNTS: Final = 0.1
"""Counts that nobody tuned are wide because their tails are chance: of their breadth no more than this is asked."""


class Candidate(msgspec.Struct, frozen=True):
    """A new release, and how its recommender, fitted on `before` alone, answered the held-out `cases`.

    `ndcg` float64 [cases]; `shown` int64 [cases, k], indices of `vocabulary`. `held_out_from` is the cut, epoch ms.
    """

    manifest: Manifest
    ndcg: Float64
    shown: Int64
    vocabulary: Vocabulary
    cases: list[Case]
    before: pd.DataFrame
    held_out_from: int


class Rules(msgspec.Struct, frozen=True):
    """How a contest goes. `asked_for`: recommenders that an operator named; one of them replaces any other without a
    contest. `refresh_ms`: a serving release whose data are this much older than the candidate's is stale; 0: never."""

    bounds: GateThresholds = GateThresholds()
    mask_seen: bool = False
    asked_for: frozenset[str] | None = None
    refresh_ms: int = 24 * 60 * 60 * 1000
    seed: int = 0


def judge(root: Path, candidate: Candidate, rules: Rules) -> GateReport:
    """The gate's verdict on a candidate that is written below `root` already, against the release that serves.

    Raises:
        ReleaseError: the candidate itself cannot be loaded.
    """
    manifest = candidate.manifest
    home = root / manifest.domain
    served = release_store.load(home / manifest.id)
    opponent, how = _opponent(home, release_store.current_id(root, manifest.domain), manifest, rules)
    theirs = (opponent.item_ids if opponent is not None else [], *(one.targets for one in candidate.cases))
    numbers = _numbered(candidate.vocabulary.item_ids, served.item_ids, *theirs)
    cases = holdout_cases(candidate.cases, candidate.before, numbers, np.random.default_rng(rules.seed))
    asked = holdout_answers(served.recommender, candidate.cases, numbers, mask_seen=rules.mask_seen)
    histories = [one.history for one in candidate.cases]
    personalized = manifest.recommender != "popularity"
    checks = gate.sanity_checks(
        asked, cases, latency_ms(lambda one: served.scores([one]), histories), rules.bounds, personalized=personalized
    )
    if opponent is None:
        return GateReport(checks, None, how, len(histories))
    recommender, form = as_of(opponent, candidate.before, candidate.held_out_from)
    answered = holdout_answers(recommender, candidate.cases, numbers, mask_seen=rules.mask_seen)
    ours = HoldoutAnswers(candidate.ndcg, renumbered(candidate.shown[:, : gate.K], candidate.vocabulary, numbers))
    stale = 0 < rules.refresh_ms <= manifest.cutoff_at - opponent.manifest.cutoff_at
    bounds = against(opponent.manifest, rules.bounds)
    checks += gate.comparison_checks(ours, answered, bounds, np.random.default_rng(rules.seed), stale=stale)
    how = f"{form}; its data are old enough to be replaced by an equal one" if stale else form
    return GateReport(checks, opponent.id, how, len(histories))


def against(opponent: Manifest, bounds: GateThresholds) -> GateThresholds:
    """The bounds for a contest with a release: where counts serve, less of their breadth has to be kept."""
    if opponent.recommender != ITEM_KNN:
        return bounds
    return msgspec.structs.replace(bounds, coverage=min(bounds.coverage, COVERAGE_OF_COUNTS))


def holdout_answers(
    recommender: Recommender, cases: Sequence[Case], numbers: dict[str, int], *, mask_seen: bool
) -> HoldoutAnswers:
    """What a recommender says to the cases: NDCG@10, the lists in common numbers, and scores that are not finite."""
    batch = splits.batch(cases, recommender.vocabulary, DEFAULT_HISTORY_LENGTH)
    broken = 0

    def score(start: int, stop: int) -> Float32:
        nonlocal broken
        table = recommender.score(batch.rows(start, stop))
        broken += int(np.count_nonzero(~np.isfinite(table)))
        return table

    ranked = metrics.rank(score, recommender.vocabulary, cases, gate.K, mask_seen=mask_seen)
    ndcg = metrics.per_user(ranked, recommender.vocabulary, cases, (gate.K,))[f"ndcg@{gate.K}"]
    return HoldoutAnswers(ndcg, renumbered(ranked.items, recommender.vocabulary, numbers), broken)


def as_of(release: Release, before: pd.DataFrame, cut: int) -> tuple[Recommender, str]:
    """The serving release's recommender without knowledge of what happened from `cut` (epoch ms) on, and how.

    The release's counting members are changed in place where they have to be fitted anew.
    """
    manifest, recommender = release.manifest, release.recommender
    if manifest.cutoff_at < cut:
        return recommender, "as it serves"
    log: Log | None = None
    for member in members(recommender):
        if member.name not in NEURAL:
            log = log or Log.of(before, release.vocabulary)
            member.fit(log)
    how = "as of the cut" if log is not None else "as it serves"
    if any(member.name in NEURAL for member in members(recommender)) and not 0 < manifest.held_out_from <= cut:
        how += "; its networks may have seen some of the held-out events"
    return recommender, how


def holdout_cases(
    cases: Sequence[Case], before: pd.DataFrame, numbers: dict[str, int], rng: np.random.Generator
) -> HoldoutCases:
    """Cases in numbers, with the evidence of up to 5,000 users drawn from `before`."""
    users = before["user_id"].unique()
    if len(users) > WITNESSES:
        users = rng.choice(users, WITNESSES, replace=False)
    log = Log.of(before[before["user_id"].isin(users)])
    evidence = log.matrix()
    places = np.array([numbers.get(item, -1) for item in log.vocabulary.item_ids], np.int64)
    table = evidence.tocoo()
    kept = places[table.col] >= 0
    shape = (evidence.shape[0], len(numbers))
    spread = (table.data[kept], (table.row[kept], places[table.col[kept]]))
    histories = _padded([[numbers.get(item, -1) for item in one.history.items] for one in cases])
    targets = _padded([[numbers.get(item, -1) for item in one.targets] for one in cases])
    return HoldoutCases(histories, targets, type(evidence)(spread, shape), len(numbers))


def latency_ms(score: Callable[[History], Float32], histories: Sequence[History]) -> float:
    """The 95th percentile of look-ups of one history each: scores [1, items] and the best 20, in milliseconds."""
    times = []
    for history in [*histories[:1], *histories[:TIMED]]:
        taken = []
        for _ in range(ATTEMPTS):
            started = time.perf_counter()
            top_k(score(history), 20)
            taken.append(time.perf_counter() - started)
        times.append(min(taken))
    return float(np.percentile(times[1:], 95)) * 1000 if len(times) > 1 else 0.0


def renumbered(shown: Int64, vocabulary: Vocabulary, numbers: dict[str, int]) -> Int64:
    """Indices of a vocabulary in common numbers, -1 staying -1."""
    table = np.array([*(numbers[item] for item in vocabulary.item_ids), -1], np.int64)
    found: Int64 = table[shown]
    return found


def _opponent(home: Path, serving: str | None, manifest: Manifest, rules: Rules) -> tuple[Release | None, str]:
    if serving is None:
        return None, "nothing serves yet"
    try:
        release = release_store.load(home / serving)
    except ReleaseError as error:
        return None, f"the serving release cannot be loaded: {error.reason}"
    theirs = release.manifest.recommender
    if rules.asked_for is not None and theirs not in rules.asked_for and manifest.recommender in rules.asked_for:
        return None, f"{manifest.recommender} was asked for by name, {theirs} serves"
    return release, ""


def _numbered(*groups: Iterable[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for group in groups:
        for item in group:
            numbers.setdefault(item, len(numbers))
    return numbers


def _padded(rows: Sequence[Sequence[int]]) -> Int64:
    table = np.full((len(rows), max((len(one) for one in rows), default=0)), -1, np.int64)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table
