"""One training run: the archive as of now in, releases out. Counts first, within seconds; then what learns longer.

Each release is a candidate: it serves once the gate lets it pass, and says on its card what the gate found.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from features import cache
from features.dataset import catalogue, interactions, profile_words
from models.arrays import Float64
from models.data import splits
from models.data.interactions import Log
from models.data.item_features import Catalogue
from models.data.profiles import Profiles
from models.domains import tuning as presets
from models.domains.preset import DomainPreset
from models.errors import ReleaseError, TrainingError
from models.evaluation import metrics as evaluation
from models.evaluation.experiment import Experiment, Plan, Tuned, best_of
from models.recommenders import freshness
from models.recommenders.base import Recommender, Vocabulary
from models.recommenders.blend import Blend, members
from models.recommenders.item_item import ItemKNN
from models.recommenders.neural import warm_start as warm
from models.recommenders.registry import NEURAL, names_of
from models.releases import release_store, rollout
from models.releases.gate import GateThresholds
from models.releases.manifest import DEFAULT_HISTORY_LENGTH, ITEM_KNN, Manifest, new_id
from models.training import drift
from models.training import warm_start as warmstart
from models.training.champion_challenger import Candidate, Rules, judge

LEAST_EVENTS: Final = 1_000
HELD_OUT: Final = splits.Protocol("last-share", 0.05)
MOST_USERS: Final = 1_000
SMALL_CATALOGUE: Final = 20_000
TRIALS: Final = 6
NEURAL_SHARE: Final = 0.45
"""Of a run's minutes; the final fit of a neural member takes about as long again, the counting ones share the rest."""
LONG_MINUTES: Final = 10.0
"""A neural recommender has one trial, its defaults, for every so many minutes of a run."""
LEARNED: Final = ("user_id", "item_id", "kind", "value", "at", "category")
"""What training reads of an event."""
PROTOCOL: Final = "split in time: newest 5% of events held out, the 5% before them for tuning; full catalogue"

log = logging.getLogger("coldstream.trainer")

Progress = Callable[[str, float, dict[str, float]], None]
"""Called with the stage, how much of it is done (0..1), and its figures."""


class Result(msgspec.Struct, frozen=True):
    """What a run made: the release ids, which release serves now, why, and the checks that others failed by id."""

    made: list[str]
    serving: str | None
    reason: str
    metrics: dict[str, dict[str, float]]
    refused: dict[str, list[str]] = {}


class Run(msgspec.Struct, frozen=True):
    """What a training run is told."""

    archive: Path
    root: Path
    domain: str
    recommender: str = "auto"
    minutes: float = 4.0
    epochs: int = 0
    seed: int = 0
    mask_seen: bool = False
    preset: Path | None = None
    cache: Path | None = None
    warm_start: bool = True
    bounds: GateThresholds = GateThresholds()
    refresh_ms: int = 24 * 60 * 60 * 1000
    home: DomainPreset = DomainPreset()
    """The domain's: kinds' weights, half-life, members, parameters, freshness."""
    canary_share: float | None = None
    """With a share a candidate begins as a canary; None: it serves everyone at once."""

    @property
    def rules(self) -> Rules:
        """How its candidates are judged: what was named takes the place of anything else, `auto` has to win."""
        named = {"counts": frozenset({ITEM_KNN}), "auto": None, "blend": frozenset({"blend"})}
        others = frozenset({*self.recommender.split(","), *(["blend"] if "," in self.recommender else [])})
        asked_for = named.get(self.recommender, others)
        return Rules(self.bounds, self.mask_seen, asked_for, self.refresh_ms, self.seed)


class Archived(msgspec.Struct, frozen=True):
    """What a run learns from, read once for all of its releases: interactions, the newest word on each item, every word
    on users, as `features.dataset` gives them."""

    events: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame


def read(run: Run) -> Archived:
    """Everything that is archived of the run's domain; with a `cache`, only new events are read from the archive.

    Raises:
        TrainingError: there are too few events.
        ArchiveError: there is no archive yet.
    """
    if run.cache is not None:
        frame, read_ = cache.interactions(run.archive, run.domain, run.cache)
        log.info("%s: %d new events, from %d of %d parts", run.domain, read_.new, len(read_.opened), read_.parts)
    else:
        frame = interactions(run.archive, run.domain)
    if len(frame) < LEAST_EVENTS:
        raise TrainingError(f"{run.domain}: {len(frame)} interactions are archived; training asks for {LEAST_EVENTS}")
    return Archived(frame, catalogue(run.archive, run.domain), profile_words(run.archive, run.domain))


def train_counts(run: Run, progress: Progress | None = None, archived: Archived | None = None) -> Candidate:
    """A release of item-kNN with its defaults over what is `archived`, within seconds.

    Raises:
        TrainingError: there are too few events.
    """
    started = time.monotonic()
    archived = read(run) if archived is None else archived
    frame = archived.events
    before, after = splits.split(frame, HELD_OUT, run.seed)
    held_out = splits.cases(before, after, DEFAULT_HISTORY_LENGTH, MOST_USERS, run.seed, run.home.weights)
    _say(progress, "counts", 0.2)
    trial = ItemKNN()
    trial.fit(_log(run, before, frame))
    batch = splits.batch(held_out, trial.vocabulary, DEFAULT_HISTORY_LENGTH)

    def score(start: int, stop: int) -> np.ndarray:
        return trial.score(batch.rows(start, stop))

    ranked = evaluation.rank(score, trial.vocabulary, held_out, 10, mask_seen=run.mask_seen)
    values = evaluation.per_user(ranked, trial.vocabulary, held_out, (10,))
    figures = evaluation.together(values, ranked, trial.vocabulary, (10,))
    cut = int(after["at"].min()) if len(after) else 0
    figures |= _next_hits(run, trial, frame, cut)
    _say(progress, "counts", 0.6, figures)
    card = _card(run, ITEM_KNN, archived, values, figures, cut)
    made = _release(run, card, ItemKNN(), _log(run, frame, frame), frame, started)
    _say(progress, "counts", 1.0, figures)
    return Candidate(made, values["ndcg@10"], ranked.items, trial.vocabulary, held_out, before, cut)


def train_tuned(run: Run, progress: Progress | None = None, archived: Archived | None = None) -> Candidate:
    """A release of what wins on the tuning cases: a candidate, or the blend of all of them.

    `run.recommender` names the candidates (`auto`: the usual members of a blend). Metrics are of the held-out window,
    by a fit that ends before it. What serves is that neural network, and counts over everything. A network begins with
    the serving release's weights and parameters, where there are some that fit.
    """
    started = time.monotonic()
    archived = read(run) if archived is None else archived
    frame = archived.events
    home: dict[str, Any] = {"weights": run.home.weights, "recency_ms": run.home.recency_ms}
    plan = Plan(HELD_OUT, run.seed, TRIALS, run.minutes, MOST_USERS, run.mask_seen, _least(frame), run.epochs, **home)
    starts, before = warmstart.of_release(run.root, run.domain) if run.warm_start else ([], {})
    chosen_first = run.home.params() | (presets.read(run.preset).params() if run.preset is not None else {})
    offered = Catalogue.of(archived.items) if len(archived.items) else None
    defaults = {**chosen_first, **before} if run.preset is None else {**before, **chosen_first}
    people = Profiles.read(archived.users)
    known_of: dict[str, Any] = {"catalogue": offered, "profiles": people}
    experiment = Experiment(frame, plan, progress, defaults=defaults, starts=starts, **known_of)
    experiment.situation = warmstart.fitting(experiment.situation, starts)
    names = (
        run.home.training.members if run.recommender in {"auto", "blend"} else names_of(run.recommender, trained=True)
    )
    tuned = [_tune(experiment, name, run.minutes, len(names)) for name in names if _useful(name, names, run)]
    chosen = tuned
    if len(tuned) > 1:
        blended = experiment.blend(tuned)
        chosen = [blended] if run.recommender == "blend" else [*tuned, blended]
    best = best_of(chosen)
    recommender = experiment.fit(best)
    values, ranked = experiment.measured(recommender)
    trial = recommender.vocabulary
    figures = evaluation.together(values, ranked, trial)
    kept = {name: value for name, value in figures.items() if name.endswith("@10") or name == "users"}
    kept |= _next_hits(run, recommender, frame, experiment.held_out_from)
    card = _card(run, best.name, archived, values, kept, experiment.held_out_from)
    learns = any(one.name in NEURAL for one in members(recommender))
    whole = _log(run, frame, frame, experiment.test.log.vocabulary if learns else None, offered)
    kept_starts = warmstart.of_experiment(experiment, best, recommender)
    tuning = {one.name: round(one.ndcg, 6) for one in chosen}
    _say(progress, best.name, 1.0, kept)
    made = _release(run, card, recommender, whole, frame, started, kept_starts, {"tuning": tuning})
    where = (experiment.test.cases, experiment.before, experiment.held_out_from)
    return Candidate(made, values["ndcg@10"], ranked.items, trial, *where)


def settle(run: Run, candidates: Sequence[Candidate]) -> Result:
    """Ask the gate, the candidate of highest NDCG@10 first; the first that passes is promoted, the others stay ready.

    A candidate that serves already is not asked again. Each verdict is written on its release's card; one that fails is
    refused, with the names of the checks that it failed.
    """
    made = [one.manifest.id for one in candidates]
    figures = {one.manifest.recommender: one.manifest.metrics for one in candidates}
    refused: dict[str, list[str]] = {}
    words = []
    for one in sorted(candidates, key=lambda one: -one.manifest.metrics.get("ndcg@10", 0.0)):
        serving, asked_for = release_store.current_id(run.root, run.domain), run.rules.asked_for
        if one.manifest.id == serving:
            words.append(f"{one.manifest.recommender} serves already")
            continue
        if serving is not None and asked_for is not None and one.manifest.recommender not in asked_for:
            continue  # what was named stays; counts are there for a domain that has nothing yet
        failed, said = _asked(run, one)
        words.append(f"{one.manifest.recommender} {said}")
        if not failed:
            rollout.roll_out(run.root, run.domain, one.manifest.id, run.canary_share)
            break
        refused[one.manifest.id] = failed
    release_store.retire(run.root, run.domain)
    return Result(made, release_store.current_id(run.root, run.domain), "; ".join(words), figures, refused)


def together(results: Sequence[Result]) -> Result:
    """What several rounds of one run made."""
    made = [one for result in results for one in result.made]
    metrics = {name: figures for result in results for name, figures in result.metrics.items()}
    refused = {release: failed for result in results for release, failed in result.refused.items()}
    return Result(made, results[-1].serving, "; ".join(one.reason for one in results if one.reason), metrics, refused)


def _asked(run: Run, candidate: Candidate) -> tuple[list[str], str]:
    """The names of the checks that a candidate fails, and what is to be said of it."""
    manifest = candidate.manifest
    try:
        verdict = judge(run.root, candidate, run.rules)
    except ReleaseError as error:
        release_store.refuse(run.root, run.domain, manifest.id, error)
        log.error("%s: release %s is refused (%s): %s", run.domain, manifest.id, error.reason, error.detail)
        return [error.reason], f"is refused: {error.reason}"
    release_store.update_manifest(run.root, msgspec.structs.replace(manifest, gate=verdict))
    if verdict.passed:
        contest = next((one for one in verdict.checks if one.name == "not-better"), None)
        return [], f"passes ({contest.detail} {contest.value:+.3f})" if contest else f"passes ({verdict.comparison})"
    refusal = ReleaseError(",".join(verdict.reasons), verdict.detail)
    release_store.refuse(run.root, run.domain, manifest.id, refusal)
    log.warning("%s: release %s is refused: %s", run.domain, manifest.id, verdict.detail)
    return verdict.reasons, f"is refused: {verdict.detail}"


def _useful(name: str, names: list[str], run: Run) -> bool:
    """What a user took before answers nothing where it cannot be recommended again."""
    return name != "personal" or not run.mask_seen or len(names) == 1


def _tune(experiment: Experiment, name: str, minutes: float, candidates: int) -> Tuned:
    if name in NEURAL:
        trials = max(1, int(minutes // LONG_MINUTES))
        return experiment.tune(name, trials, minutes * (NEURAL_SHARE if candidates > 1 else 0.6))
    return experiment.tune(name, TRIALS, 0.1 * minutes)


def _release(
    run: Run,
    card: Manifest,
    recommender: Recommender,
    log: Log,
    frame: pd.DataFrame,
    started: float,
    starts: Mapping[str, warm.Start] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write a release: counting members fitted on `log`, neural ones as they are, neighbours beside them.

    For the next run: `starts` by file name, and what the newest of the events (`frame`) look like.
    """
    for member in members(recommender):
        if member.name not in NEURAL:
            member.fit(log)
    vocabulary: Vocabulary = log.vocabulary
    if isinstance(recommender, Blend):
        recommender.vocabulary = vocabulary
    beside = _beside(recommender)
    if recommender.name != ITEM_KNN and beside not in members(recommender):
        beside.fit(log)
    begun = [getattr(member, "started_from", None) for member in members(recommender)]
    manifest = msgspec.structs.replace(
        card,
        params={**recommender.describe(), **(more or {}), "kinds": run.home.kinds, **card.params},
        warm_start=next((one for one in begun if one), None),
    )

    def write(folder: Path) -> list[str]:
        own = recommender.save(folder, release_store.prefix_of(recommender.name))
        kept = [warm.write(folder / name, start) for name, start in (starts or {}).items()]
        kept += freshness.save_first(folder, frame, vocabulary) if run.home.freshness is not None else []
        (folder / drift.REFERENCE).write_bytes(msgspec.json.encode(drift.reference_of(frame)))
        counts = [] if recommender.name == ITEM_KNN else beside.save(folder)
        return [*own, *counts, *kept, drift.REFERENCE]

    made = release_store.save(run.root, manifest, vocabulary.item_ids, write)
    whole = msgspec.structs.replace(made, seconds=round(time.monotonic() - started, 1))
    release_store.update_manifest(run.root, whole)
    return whole


def _beside(recommender: Recommender) -> ItemKNN:
    """Whose neighbours stand beside a release: its own item-kNN's where that keeps as many as usual."""
    usual = ItemKNN()
    own = (one for one in members(recommender) if isinstance(one, ItemKNN) and one.neighbours >= usual.neighbours)
    return next(own, usual)


def track(folder: Path, manifest: Manifest) -> None:
    """Log a release's parameters and metrics to MLflow's store below `folder`."""
    os.environ.setdefault("MLFLOW_ENABLE_TELEMETRY", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # which its import sets lower
    mlflow.set_tracking_uri(folder.absolute().as_uri())
    mlflow.set_experiment(f"coldstream-{manifest.domain}")
    with mlflow.start_run(run_name=manifest.id):
        plain = {name: value for name, value in manifest.params.items() if not isinstance(value, list | dict)}
        mlflow.log_params({"recommender": manifest.recommender, **plain})
        mlflow.log_metrics({name.replace("@", "_at_"): value for name, value in manifest.metrics.items()})


def fingerprint(events: pd.DataFrame, items: pd.DataFrame, users: pd.DataFrame) -> str:
    """16 hex digits of what a run learns from, the same for every release of the run.

    It covers user, item, kind, value, time and category of each of the `events`, the newest word on each of the `items`
    and every word on `users`, as `features.dataset` gives them; in that order, so the same rows in another differ.
    """
    whole = hashlib.sha256()
    for table in (events[list(LEARNED)], items[["record"]], users[["record"]]):
        rows = pd.util.hash_pandas_object(table, index=False).to_numpy(np.uint64)
        whole.update(hashlib.sha256(rows.tobytes()).digest())
    return whole.hexdigest()[:16]


def _least(frame: pd.DataFrame) -> int:
    """Rare items are left out of large catalogues; look-ups reach them through popularity and category."""
    return 1 if frame["item_id"].nunique() <= SMALL_CATALOGUE else 5


def _next_hits(run: Run, recommender: Recommender, frame: pd.DataFrame, cut: int) -> dict[str, float]:
    """The hit rate by which drift is seen later: a fit that ends at `cut`, asked what came next again and again."""
    cases = drift.progressive(frame, cut, np.random.default_rng(run.seed), weights=run.home.weights)
    return {drift.HIT_RATE: drift.hit_rate(recommender, cases, mask_seen=run.mask_seen)} if cases else {}


def _log(
    run: Run,
    part: pd.DataFrame,
    frame: pd.DataFrame,
    vocabulary: Vocabulary | None = None,
    offered: Catalogue | None = None,
) -> Log:
    """A part of the domain's `frame` as its preset weighs events."""
    known: dict[str, Any] = {"weights": run.home.weights, "recency_ms": run.home.recency_ms, "catalogue": offered}
    return Log.of(part, vocabulary, min_count=_least(frame), **known)


def _card(
    run: Run,
    recommender: str,
    archived: Archived,
    values: Mapping[str, Float64],
    figures: dict[str, float],
    held_out_from: int,
) -> Manifest:
    frame = archived.events
    now = int(time.time() * 1000)
    bounds = evaluation.intervals(values, np.random.default_rng(run.seed))
    return Manifest(
        id=new_id(now),
        domain=run.domain,
        recommender=recommender,
        created_at=now,
        cutoff_at=int(frame["at"].max()),
        items=0,
        events=len(frame),
        users=int(frame["user_id"].nunique()),
        files={},
        params={"seed": run.seed},
        metrics=figures,
        protocol=PROTOCOL,
        parent=release_store.current_id(run.root, run.domain),
        intervals={name: one for name, one in bounds.items() if name in figures},
        held_out_from=held_out_from,
        data=fingerprint(frame, archived.items, archived.users),
    )


def _say(progress: Progress | None, stage: str, done: float, figures: dict[str, float] | None = None) -> None:
    if progress is not None:
        progress(stage, done, figures or {})
