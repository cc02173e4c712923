"""Studies: gone on with, shared, and not stopped by a process that was killed."""

import signal
import subprocess
import sys
from pathlib import Path

from optuna import Trial
from optuna.trial import TrialState

from models.evaluation.studies import DEFAULTS, completed_trials, is_first_trial, new_study

BEGUN = """
import sys, time
from pathlib import Path
from models.evaluation.studies import is_first_trial, new_study
study = new_study(0, Path(sys.argv[1]), "s")
print(is_first_trial(study, study.ask()), flush=True)
time.sleep(60)
"""


def drawn(trial: Trial) -> float:
    return trial.suggest_float("x", 0.0, 1.0)


def test_a_resumed_study_draws_new_parameters(tmp_path: Path) -> None:
    file = tmp_path / "studies.log"
    new_study(7, file, "s").optimize(drawn, n_trials=3)
    later = new_study(7, file, "s")
    later.optimize(drawn, n_trials=3)
    assert completed_trials(later) == 6
    assert len({trial.params["x"] for trial in later.trials}) == 6
    again, other = new_study(7), new_study(7)
    again.optimize(drawn, n_trials=3)
    other.optimize(drawn, n_trials=3)
    assert [trial.params for trial in again.trials] == [
        trial.params for trial in other.trials
    ]  # the same seed, the same draws


def test_exactly_one_trial_uses_the_defaults() -> None:
    study = new_study()
    first, second = study.ask(), study.ask()
    assert [is_first_trial(study, first), is_first_trial(study, second)] == [True, False]
    study.tell(first, state=TrialState.FAIL)
    assert is_first_trial(study, study.ask())  # it came to nothing
    assert not is_first_trial(study, study.ask())


def test_trials_of_killed_processes_fail_and_trials_of_living_processes_run(tmp_path: Path) -> None:
    file = tmp_path / "studies.log"
    with subprocess.Popen([sys.executable, "-c", BEGUN, str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "True"
        beside = new_study(0, file, "s")
        assert [trial.state for trial in beside.trials] == [TrialState.RUNNING]
        assert not is_first_trial(beside, beside.ask())  # the defaults are being tried
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    study = new_study(0, file, "s")
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.RUNNING]
    assert completed_trials(study) == 0
    trial = study.ask()
    assert is_first_trial(study, trial)
    assert DEFAULTS in study.trials[-1].user_attrs
