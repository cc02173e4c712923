"""The environment variables of a system that tests and benchmarks start."""

import os
from pathlib import Path
from typing import Final

from serving.process.environment import PART_DEFAULTS
from testing.ports import free_port

PORT_SETTINGS: Final = (
    "port",
    "kafka_port",
    "api_metrics_port",
    "consumer_metrics_port",
    "archive_metrics_port",
    "trainer_metrics_port",
)


def system_environment(state: Path, **settings: object) -> dict[str, str]:
    """Environment variables that give a system free ports, its state folder, and `settings`."""
    ports = {name: free_port() for name in PORT_SETTINGS}
    values = {"state": state, **ports, **settings}
    variables = {f"COLDSTREAM_{name.upper()}": str(value) for name, value in values.items()}
    return {**PART_DEFAULTS, **os.environ, **variables}
