"""Studies of Optuna: kept in a file, gone on with by a later process, and shared by processes of one time."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

DEFAULTS: Final = "defaults"
DRAWN: Final = "drawn"
"""Attributes of a trial: what its parameters are; their value is the process that tries them."""


def new_study(seed: int = 0, file: Path | None = None, name: str = "study") -> "Study":
    """An Optuna study (TPE; median pruning after three trials and two epochs), kept in `file` where one is given.

    One that has trials goes on with another seed: with the same one its first draws would come again. A trial of this
    machine whose process was killed has failed.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)
    storage = None
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(file)))
    chosen = {"study_name": name, "pruner": pruner, "storage": storage}
    study = optuna.create_study(direction="maximize", load_if_exists=True, **chosen)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if _killed(trial):
            study.tell(trial.number, state=TrialState.FAIL)
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials(deepcopy=False)))
    return study


def completed_trials(study: "Study") -> int:
    """How many trials of a study have come to an end."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def is_first_trial(study: "Study", trial: "Trial") -> bool:
    """Whether a trial is that of the defaults, which no other of the study tried or tries; its process is noted."""
    from optuna.trial import TrialState

    others = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
    first = not any(DEFAULTS in other.user_attrs for other in others)
    trial.set_user_attr(DEFAULTS if first else DRAWN, [socket.gethostname(), os.getpid()])
    return first


def _killed(trial: "FrozenTrial") -> bool:
    host, process = trial.user_attrs.get(DEFAULTS) or trial.user_attrs.get(DRAWN) or (None, 0)
    return host == socket.gethostname() and not psutil.pid_exists(process)
