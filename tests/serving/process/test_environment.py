"""The variables that child processes are started with."""

import os
from collections.abc import Callable

import pytest

from serving.process.environment import PART_DEFAULTS, part_environment, settings_variables, training_environment
from serving.settings import Settings, read

SETTINGS = Settings(
    port=8_181,
    kafka="a:9092",
    kafka_security={
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_username": "ann",
        "sasl_password": "secret",
    },
    diversity={"shop": 0.5},
    warm_start=False,
    train_minutes=0.5,
)


@pytest.mark.parametrize("environment", [settings_variables, part_environment, training_environment])
def test_a_child_reads_the_settings_of_its_parent(environment: Callable[[Settings], dict[str, str]]) -> None:
    assert read(None, environment(SETTINGS)) == SETTINGS


def test_a_setting_without_a_value_is_no_variable() -> None:
    assert "COLDSTREAM_PRESET" not in settings_variables(SETTINGS)
    assert settings_variables(SETTINGS)["COLDSTREAM_PORT"] == "8181"


def test_the_parents_variables_override_the_defaults_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PART_DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    assert part_environment(SETTINGS).items() >= PART_DEFAULTS.items()
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    assert part_environment(SETTINGS)["OPENBLAS_NUM_THREADS"] == "7"


def test_training_uses_more_threads_than_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    variables = training_environment(SETTINGS)
    assert variables["TF_NUM_INTRAOP_THREADS"] == "5"
    assert "OPENBLAS_NUM_THREADS" not in variables
