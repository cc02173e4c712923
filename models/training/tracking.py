"""Experiment tracking: parameters and metrics of each release in MLflow's file store."""

import logging
import os
from pathlib import Path

from models.releases.manifest import Manifest


def log_release(folder: Path, manifest: Manifest) -> None:
    """Log a release's parameters and metrics to MLflow's store below `folder`."""
    os.environ.setdefault("MLFLOW_ENABLE_TELEMETRY", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # its import sets a lower level
    mlflow.set_tracking_uri(folder.absolute().as_uri())
    mlflow.set_experiment(f"coldstream-{manifest.domain}")
    with mlflow.start_run(run_name=manifest.id):
        plain = {name: value for name, value in manifest.params.items() if not isinstance(value, list | dict)}
        mlflow.log_params({"recommender": manifest.recommender, **plain})
        mlflow.log_metrics({name.replace("@", "_at_"): value for name, value in manifest.metrics.items()})
