"""A training run: its configuration, the data it reads, the release that serves when it starts, and its result."""

import logging
from pathlib import Path
from typing import Final

import msgspec
import pandas as pd

from features import cache
from features.dataset import catalogue, interactions
from features.offline import OfflineStore
from models.domains.preset import DomainPreset
from models.errors import ReleaseError, TrainingError
from models.releases import release_store
from models.releases.gate import GateThresholds
from models.releases.manifest import DEFAULT_HISTORY_LENGTH, ITEM_KNN, Manifest, read_manifest
from models.training.champion_challenger import ComparisonRules

LEAST_EVENTS: Final = 1_000

log = logging.getLogger("coldstream.trainer")


class TrainingRun(msgspec.Struct, frozen=True):
    """The configuration of a training run.

    Attributes:
        archive: folder of archived events, items and users.
        root: folder of releases.
        recommender: `auto`, `counts` (item-kNN alone), `blend`, or names with commas.
        minutes: time for tuning.
        epochs: of neural recommenders; 0: until they no longer improve.
        mask_seen: whether items of a user's history are never recommended.
        tuned: a file of parameters that `coldstream tune` wrote; it has priority over the preset and the warm start.
        cache: folder in which the archive's events are kept between runs.
        warm_start: whether networks start from the serving release's weights.
        refresh_ms: a serving release whose data are this much older than a candidate's may be replaced by an equal
            candidate; 0: never.
        preset: the domain's kind weights, half-life, blend members, parameters and freshness.
        canary_share: share of users that a candidate starts with as a canary; None: it serves everyone at once.
        history_length: the newest events of a history that are trained on and that the release reads.
        tracking: folder of MLflow's file store; None: runs are not tracked.
    """

    archive: Path
    root: Path
    domain: str
    recommender: str = "auto"
    minutes: float = 4.0
    epochs: int = 0
    seed: int = 0
    mask_seen: bool = False
    tuned: Path | None = None
    cache: Path | None = None
    warm_start: bool = True
    thresholds: GateThresholds = GateThresholds()
    refresh_ms: int = 24 * 60 * 60 * 1000
    preset: DomainPreset = DomainPreset()
    canary_share: float | None = None
    history_length: int = DEFAULT_HISTORY_LENGTH
    tracking: Path | None = None

    @property
    def requested(self) -> frozenset[str] | None:
        """The recommenders that the operator named; None for `auto`, which has to win every comparison."""
        if self.recommender == "auto":
            return None
        if self.recommender == "counts":
            return frozenset({ITEM_KNN})
        names = self.recommender.split(",")
        return frozenset(names) | (frozenset({"blend"}) if len(names) > 1 else frozenset())

    @property
    def comparison_rules(self) -> ComparisonRules:
        """How its candidates are compared with the serving release."""
        return ComparisonRules(
            thresholds=self.thresholds,
            mask_seen=self.mask_seen,
            requested=self.requested,
            refresh_ms=self.refresh_ms,
            seed=self.seed,
        )


class RunData(msgspec.Struct, frozen=True):
    """What a run learns from, read once for all of its releases, as `features.dataset` returns it.

    Attributes:
        events: interactions [user_id, item_id, kind, value, at, category] in time order.
        items: the newest version of each item of the catalogue.
        users: every profile update.
    """

    events: pd.DataFrame
    items: pd.DataFrame
    users: pd.DataFrame


class ServingRelease(msgspec.Struct, frozen=True):
    """The release that serves when a run starts: read once, and passed to every step of the run.

    `manifest` is None if it cannot be read.
    """

    id: str
    folder: Path
    manifest: Manifest | None

    @property
    def replaceable_by_item_knn(self) -> bool:
        """Whether it is item-kNN itself, or damaged: then any whole release is an improvement."""
        return self.manifest is None or self.manifest.recommender == ITEM_KNN


class TrainingResult(msgspec.Struct, frozen=True):
    """What a run produced.

    Attributes:
        trained: ids of the new releases.
        serving: the release that serves now.
        reason: what the gate decided, in words.
        metrics: results on the holdout, by recommender.
        refused: names of the failed checks, by release id.
    """

    trained: list[str]
    serving: str | None
    reason: str
    metrics: dict[str, dict[str, float]]
    refused: dict[str, list[str]] = {}


def read_data(run: TrainingRun) -> RunData:
    """Everything that is archived of the run's domain; with a `cache`, only new events are read from the archive.

    Raises:
        TrainingError: there are too few events.
        ArchiveError: there is no archive yet.
    """
    if run.cache is not None:
        events, parts = cache.interactions(run.archive, run.domain, run.cache)
        log.info("%s: %d new events, from %d of %d parts", run.domain, parts.new, len(parts.opened), parts.parts)
    else:
        events = interactions(run.archive, run.domain)
    if len(events) < LEAST_EVENTS:
        raise TrainingError(f"{run.domain}: {len(events)} interactions are archived; training needs {LEAST_EVENTS}")
    offline = OfflineStore(run.archive, [run.domain])
    offline.update()
    return RunData(events, catalogue(run.archive, run.domain), offline.profile_history(run.domain))


def read_serving(root: Path, domain: str) -> ServingRelease | None:
    """The serving release of a domain at this moment; None if there is none."""
    for problem in release_store.problems(root, domain):
        log.warning("%s: %s", domain, problem.detail)
    release = release_store.serving_id(root, domain)
    if release is None:
        return None
    folder = root / domain / release
    try:
        return ServingRelease(release, folder, read_manifest(folder))
    except ReleaseError as error:
        log.warning("%s: the serving release %s cannot be read (%s): %s", domain, release, error.reason, error.detail)
        return ServingRelease(release, folder, None)
