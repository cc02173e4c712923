"""Optuna studies: stored in a file, resumed by later processes, and shared by concurrent processes."""

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
"""Trial attributes that say where the parameters came from; the value is [host, process id] of the trial."""


def new_study(seed: int = 0, file: Path | None = None, name: str = "study") -> "Study":
    """An Optuna study (TPE; median pruning after three trials and two epochs), stored in `file` if given.

    A resumed study uses another seed, because the same seed would repeat its first draws. Running trials of this
    machine whose process no longer exists are marked as failed.
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
    """The number of completed trials of a study."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def is_first_trial(study: "Study", trial: "Trial") -> bool:
    """Whether a trial has to use the defaults because no other trial of the study does; records the trial's process."""
    from optuna.trial import TrialState

    others = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
    first = not any(DEFAULTS in other.user_attrs for other in others)
    trial.set_user_attr(DEFAULTS if first else DRAWN, [socket.gethostname(), os.getpid()])
    return first


def _killed(trial: "FrozenTrial") -> bool:
    host, process = trial.user_attrs.get(DEFAULTS) or trial.user_attrs.get(DRAWN) or (None, 0)
    return host == socket.gethostname() and not psutil.pid_exists(process)
