"""A challenger before the gate: compared with the champion (the serving release) on held-out cases, its look-ups timed.

Neither side has seen the held-out events. The challenger's NDCG is that of a fit that ends before the holdout. The
champion is evaluated as it serves if its data end before the holdout too. Otherwise it is evaluated as of the cut: its
non-neural members are refitted, with their own parameters, on what came before the holdout; its networks stay as they
are, because they learned only from what came before an earlier holdout.
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
from models.data.interactions import Interactions
from models.data.splits import EvaluationCase
from models.data.vocabulary import Vocabulary
from models.errors import ReleaseError
from models.evaluation import metrics
from models.recommenders.base import Scorer
from models.recommenders.live_popularity import follow_stream
from models.recommenders.top_k import top_k
from models.releases import gate, release_store
from models.releases.gate import GateReport, GateThresholds, HoldoutAnswers, HoldoutCases
from models.releases.manifest import ITEM_KNN, Manifest
from models.releases.release import Release

EVIDENCE_USERS: Final = 5_000
"""Users whose histories say which items go together."""
TIMED_LOOKUPS: Final = 100
ATTEMPTS: Final = 5
"""The time of a look-up is the fastest of so many attempts: other load on the machine does not count."""
ITEM_KNN_COVERAGE: Final = 0.1
"""An untuned item-kNN shows many items by chance: its successor has to cover only this share of them."""


class Challenger(msgspec.Struct, frozen=True):
    """A new release, and how its recommender, fitted on `before` alone, answered the held-out cases.

    Attributes:
        ndcg: float64 [cases].
        shown: int64 [cases, k], indices of `vocabulary`.
        before: the events before the holdout.
        events: all events: live popularity counts those before each case.
        held_out_from: start of the holdout, epoch ms.
    """

    manifest: Manifest
    ndcg: Float64
    shown: Int64
    vocabulary: Vocabulary
    cases: list[EvaluationCase]
    before: pd.DataFrame
    events: pd.DataFrame
    held_out_from: int


class ComparisonRules(msgspec.Struct, frozen=True):
    """How challengers are compared with the champion.

    Attributes:
        requested: recommenders that the operator named; they replace any other recommender without a comparison.
        refresh_ms: a champion whose data are this much older than the challenger's is stale; 0: never.
    """

    thresholds: GateThresholds = GateThresholds()
    mask_seen: bool = False
    requested: frozenset[str] | None = None
    refresh_ms: int = 24 * 60 * 60 * 1000
    seed: int = 0


def judge(root: Path, challenger: Challenger, champion_folder: Path | None, rules: ComparisonRules) -> GateReport:
    """The gate's report on a challenger that is saved below `root`, compared with the release in `champion_folder`.

    Raises:
        ReleaseError: the challenger itself cannot be loaded.
    """
    manifest = challenger.manifest
    release = release_store.load(root / manifest.domain / manifest.id)
    champion, reason = _champion(champion_folder, manifest, rules)
    champion_items = champion.item_ids if champion is not None else []
    numbers = _numbered(
        challenger.vocabulary.item_ids, release.item_ids, champion_items, *(case.targets for case in challenger.cases)
    )
    checks = _sanity_checks(release, challenger, numbers, rules)
    if champion is None:
        return GateReport(checks, None, reason, len(challenger.cases))
    recommender, comparison = as_of(champion, challenger.before, challenger.held_out_from)
    follow_stream(recommender, challenger.events)
    champion_answers = holdout_answers(
        recommender,
        challenger.cases,
        numbers,
        history_length=champion.history_length,
        mask_seen=rules.mask_seen,
    )
    shown = renumbered(challenger.shown[:, : gate.K], challenger.vocabulary, numbers)
    stale = 0 < rules.refresh_ms <= manifest.cutoff_at - champion.manifest.cutoff_at
    checks += gate.comparison_checks(
        HoldoutAnswers(challenger.ndcg, shown),
        champion_answers,
        thresholds_against(champion.manifest, rules.thresholds),
        np.random.default_rng(rules.seed),
        stale=stale,
    )
    if stale:
        comparison += "; its data are old enough that an equal release may replace it"
    return GateReport(checks, champion.id, comparison, len(challenger.cases))


def thresholds_against(champion: Manifest, thresholds: GateThresholds) -> GateThresholds:
    """The thresholds of a comparison: a successor of item-kNN has to keep less of its coverage."""
    if champion.recommender != ITEM_KNN:
        return thresholds
    return msgspec.structs.replace(thresholds, coverage=min(thresholds.coverage, ITEM_KNN_COVERAGE))


def holdout_answers(
    recommender: Scorer,
    cases: Sequence[EvaluationCase],
    numbers: dict[str, int],
    *,
    history_length: int,
    mask_seen: bool,
) -> HoldoutAnswers:
    """A recommender's answers: NDCG@10, the lists in common item numbers, and the number of scores not finite."""
    batch = splits.batch_cases(cases, recommender.vocabulary, history_length)
    broken = 0

    def score(start: int, stop: int) -> Float32:
        nonlocal broken
        table = recommender.score(batch.slice(start, stop))
        broken += int(np.count_nonzero(~np.isfinite(table)))
        return table

    ranked = metrics.rank(score, recommender.vocabulary, cases, gate.K, mask_seen=mask_seen)
    ndcg = metrics.per_user(ranked, recommender.vocabulary, cases, (gate.K,))[f"ndcg@{gate.K}"]
    return HoldoutAnswers(ndcg, renumbered(ranked.items, recommender.vocabulary, numbers), broken)


def as_of(release: Release, before: pd.DataFrame, cut: int) -> tuple[Scorer, str]:
    """A release's recommender without knowledge of what happened from `cut` (epoch ms) on, and how that was achieved.

    Non-neural members that have to be refitted are changed in place.
    """
    manifest, recommender = release.manifest, release.recommender
    if manifest.cutoff_at < cut:
        return recommender, "as it serves"
    networks = [member for member in recommender.members if member.is_neural]
    comparison = "as it serves"
    if len(networks) < len(recommender.members):
        recommender.refit(Interactions.from_frame(before, release.vocabulary))
        comparison = "as of the cut"
    if networks and not 0 < manifest.held_out_from <= cut:
        comparison += "; its networks may have seen some of the held-out events"
    return recommender, comparison


def holdout_cases(
    cases: Sequence[EvaluationCase], before: pd.DataFrame, numbers: dict[str, int], rng: np.random.Generator
) -> HoldoutCases:
    """The cases in item numbers, with the evidence of up to 5,000 users sampled from `before`."""
    users = before["user_id"].unique()
    if len(users) > EVIDENCE_USERS:
        users = rng.choice(users, EVIDENCE_USERS, replace=False)
    log = Interactions.from_frame(before[before["user_id"].isin(users)])
    evidence = log.user_item_matrix()
    common = np.array([numbers.get(item, -1) for item in log.vocabulary.item_ids], np.int64)
    table = evidence.tocoo()
    kept = common[table.col] >= 0
    renumbered_entries = (table.data[kept], (table.row[kept], common[table.col[kept]]))
    histories = _padded([[numbers.get(item, -1) for item in case.history.items] for case in cases])
    targets = _padded([[numbers.get(item, -1) for item in case.targets] for case in cases])
    shape = (evidence.shape[0], len(numbers))
    return HoldoutCases(histories, targets, type(evidence)(renumbered_entries, shape), len(numbers))


def latency_ms(score: Callable[[History], Float32], histories: Sequence[History]) -> float:
    """The 95th percentile, in milliseconds, of look-ups of one history each: scores [1, items] and the best 20."""
    times = []
    for history in [*histories[:1], *histories[:TIMED_LOOKUPS]]:
        attempts = []
        for _ in range(ATTEMPTS):
            started = time.perf_counter()
            top_k(score(history), 20)
            attempts.append(time.perf_counter() - started)
        times.append(min(attempts))
    return float(np.percentile(times[1:], 95)) * 1000 if len(times) > 1 else 0.0


def renumbered(shown: Int64, vocabulary: Vocabulary, numbers: dict[str, int]) -> Int64:
    """Indices of a vocabulary as common item numbers; -1 stays -1."""
    table = np.array([*(numbers[item] for item in vocabulary.item_ids), -1], np.int64)
    common: Int64 = table[shown]
    return common


def _sanity_checks(
    release: Release, challenger: Challenger, numbers: dict[str, int], rules: ComparisonRules
) -> list[gate.Check]:
    histories = [case.history for case in challenger.cases]
    p95_ms = latency_ms(lambda history: release.scores([history]), histories)
    follow_stream(release.recommender, challenger.events)  # in look-ups the stream counts instead
    answers = holdout_answers(
        release.recommender,
        challenger.cases,
        numbers,
        history_length=release.history_length,
        mask_seen=rules.mask_seen,
    )
    cases = holdout_cases(challenger.cases, challenger.before, numbers, np.random.default_rng(rules.seed))
    personalized = release.recommender.is_personalized
    return gate.sanity_checks(answers, cases, p95_ms, rules.thresholds, personalized=personalized)


def _champion(folder: Path | None, manifest: Manifest, rules: ComparisonRules) -> tuple[Release | None, str]:
    """The loaded champion, or why there is no comparison."""
    if folder is None:
        return None, "nothing serves yet"
    try:
        champion = release_store.load(folder)
    except ReleaseError as error:
        return None, f"the serving release cannot be loaded: {error.reason}"
    current, requested = champion.manifest.recommender, rules.requested
    if requested is not None and current not in requested and manifest.recommender in requested:
        return None, f"{manifest.recommender} was requested by name, {current} serves"
    return champion, ""


def _numbered(*groups: Iterable[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for group in groups:
        for item in group:
            numbers.setdefault(item, len(numbers))
    return numbers


def _padded(rows: Sequence[Sequence[int]]) -> Int64:
    table = np.full((len(rows), max((len(row) for row in rows), default=0)), -1, np.int64)
    for number, row in enumerate(rows):
        table[number, : len(row)] = row
    return table
