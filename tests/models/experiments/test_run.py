"""Units of work in a folder: computed once, resumed after a kill, refused under another plan, cut by a budget."""

from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from models.experiments.errors import ExperimentError
from models.experiments.results import UnitResults
from models.experiments.run import ExperimentRun, RunPlan, Unit, fingerprint, units_of
from stream.files import try_lock

PLAN = RunPlan("cold start", "0123", {"ks": (0, 1), "folds": 2})


def results(unit: Unit, *, predictions: bool = True) -> UnitResults:
    keys = {"group": ["cold"], "scenario": [unit.scenario], "user_id": [f"u{unit.fold}"], "k": [1], "arm": ["a"]}
    line = pl.DataFrame({**keys, "rank": [1], "item_id": ["i1"]})
    return UnitResults(
        ranks=pl.DataFrame({**keys, "horizon": [1], "rank": [unit.fold]}),
        lists=pl.DataFrame({**keys, "recall": [1.0], "tail": [0.0]}),
        shown=line.select("group", "scenario", "k", "arm", "item_id"),
        predictions=line if predictions else None,
        facts={"fold": unit.fold},
    )


def test_a_unit_is_computed_once_and_found_again_after_a_kill(tmp_path: Path) -> None:
    units = units_of(2, 2)
    computed: list[Unit] = []

    def killed(unit: Unit) -> UnitResults:
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(unit)
        return results(unit)

    with pytest.raises(KeyboardInterrupt):
        ExperimentRun(tmp_path, PLAN).compute(units, killed)
    assert computed == [Unit(0, 0), Unit(1, 0)]

    def resumed(unit: Unit) -> UnitResults:
        computed.append(unit)
        return results(unit)

    run = ExperimentRun(tmp_path, PLAN)
    assert run.compute(units, resumed) == []
    assert computed == units
    kept = dict(run.read(units))
    assert [kept[unit].facts["fold"] for unit in units] == [0, 1, 0, 1]
    assert kept[Unit(1, 1)].ranks.equals(results(Unit(1, 1)).ranks)


def test_a_folder_of_another_plan_is_refused_and_restart_deletes_it(tmp_path: Path) -> None:
    ExperimentRun(tmp_path, PLAN).compute([Unit(0, 0)], results)
    with pytest.raises(ExperimentError, match=r"another ks; give another folder, or --restart"):
        ExperimentRun(tmp_path, RunPlan("cold start", "0123", {"ks": (0, 2), "folds": 2}))
    with pytest.raises(ExperimentError, match="another data"):
        ExperimentRun(tmp_path, RunPlan("cold start", "0124", PLAN.settings))
    other = ExperimentRun(tmp_path, RunPlan("cold start", "0124", {}), restart=True)
    assert not other.has(Unit(0, 0))


def test_after_the_budget_no_unit_starts_and_the_missing_ones_are_named(tmp_path: Path) -> None:
    run, units = ExperimentRun(tmp_path, PLAN), units_of(3, 1)
    run.compute(units[1:2], results)
    assert run.compute(units, results, minutes=0.0) == [units[0], units[2]]
    assert run.compute(units, results) == []


def test_two_processes_do_not_compute_in_one_folder(tmp_path: Path) -> None:
    run = ExperimentRun(tmp_path, PLAN)
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    with pytest.raises(ExperimentError, match="another process"):
        run.compute(units_of(1, 1), results)
    lock.release()


def test_predictions_are_copied_out_or_missed(tmp_path: Path) -> None:
    run = ExperimentRun(tmp_path / "run", PLAN)
    run.compute([Unit(0, 0)], results)
    (copy,) = run.export([Unit(0, 0)], tmp_path / "out")
    assert pl.read_parquet(copy)["item_id"].to_list() == ["i1"]
    run.compute([Unit(1, 0)], lambda unit: results(unit, predictions=False))
    with pytest.raises(ExperimentError, match="--predictions"):
        run.export([Unit(1, 0)], tmp_path / "out")


def test_the_fingerprint_sees_values_order_and_columns() -> None:
    frame = pd.DataFrame({"user_id": ["a", "b"], "at": [1, 2]})
    assert fingerprint(frame) == fingerprint(frame.copy())
    others = [frame.iloc[::-1], frame.rename(columns={"at": "then"}), frame.assign(at=[1, 3])]
    assert len({fingerprint(other) for other in (frame, *others)}) == 4


def test_names_of_units_are_names_of_folders() -> None:
    assert Unit(0, 1).name == "seed-1-fold-0"
    assert Unit(2, 0, "share=0.01 ratio=4").name == "seed-0-fold-2-share=0.01-ratio=4"
