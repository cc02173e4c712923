"""The card of a release: what it was trained on, how it was evaluated, and the results."""

import hashlib
import time
from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from models.arrays import Float64
from models.evaluation import metrics as evaluation
from models.releases.manifest import Manifest, new_id
from models.training.run import RunData, ServingRelease, TrainingRun

PROTOCOL: Final = "split in time: newest 5% of events held out, the 5% before them for tuning; full catalogue"
EVENT_COLUMNS: Final = ("user_id", "item_id", "kind", "value", "at", "category")
"""What training reads of an event."""


def release_card(
    run: TrainingRun,
    data: RunData,
    serving: ServingRelease | None,
    recommender: str,
    values: Mapping[str, Float64],
    metrics: dict[str, float],
    held_out_from: int,
) -> Manifest:
    """The card of a new release, before its files are written.

    Args:
        values: each metric of each held-out case, float64 [cases]; intervals are computed from them.
        metrics: the metrics that stand on the card.
        held_out_from: start of the holdout, epoch ms.
    """
    now = int(time.time() * 1000)
    bounds = evaluation.intervals(values, np.random.default_rng(run.seed))
    return Manifest(
        id=new_id(now),
        domain=run.domain,
        recommender=recommender,
        created_at=now,
        cutoff_at=int(data.events["at"].max()),
        items=0,
        events=len(data.events),
        users=int(data.events["user_id"].nunique()),
        files={},
        params={"seed": run.seed},
        metrics=metrics,
        protocol=PROTOCOL,
        parent=serving.id if serving is not None else None,
        history_length=run.history_length,
        intervals={name: interval for name, interval in bounds.items() if name in metrics},
        held_out_from=held_out_from,
        data=fingerprint(data),
    )


def fingerprint(data: RunData) -> str:
    """16 hex digits that identify what a run learns from: the same for every release of the run.

    They cover the columns of each event that training reads, the newest version of each item and every profile update,
    in order: the same rows in another order differ.
    """
    digest = hashlib.sha256()
    for table in (data.events[list(EVENT_COLUMNS)], data.items[["record"]], data.users[["record"]]):
        rows = pd.util.hash_pandas_object(table, index=False).to_numpy(np.uint64)
        digest.update(hashlib.sha256(rows.tobytes()).digest())
    return digest.hexdigest()[:16]
