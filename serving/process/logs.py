"""Logging: readable lines by default, or one JSON object per line; secrets of the settings are masked in both."""

import json
import logging
import sys
import time
from typing import Final

from serving.plain_text import log_entry
from serving.setting_secrets import mask_text
from serving.settings import Settings

TRAINING_LIBRARIES: Final = ("tensorflow", "absl", "tf2onnx", "jax", "keras")
TEXT: Final = "%(asctime)s %(levelname)-7s %(message)s"


class TextFormatter(logging.Formatter):
    """Formats a record as a line for people, and the traceback below it if there is one."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        super().__init__(TEXT, "%H:%M:%S")
        self.secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return mask_text(log_entry(super().format(record), record.getMessage()), self.secrets)


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, logger, message, and the traceback if there is one."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": mask_text(record.getMessage(), self.secrets),
        }
        if record.exc_info:
            line["error"] = mask_text(self.formatException(record.exc_info), self.secrets)
        return json.dumps(line)


def configure(settings: Settings) -> None:
    """Log to standard output, in the format and from the level of the settings."""
    handler = logging.StreamHandler(sys.stdout)
    formatter = JsonFormatter if settings.log_format == "json" else TextFormatter
    handler.setFormatter(formatter(settings.secrets))
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    for verbose in ("aiokafka", "kafka", "mode", "faust", "feast", "httpx", "mlflow", "jgo", *TRAINING_LIBRARIES):
        logging.getLogger(verbose).setLevel("WARNING")
    for noisy in ("kafka.net.selector", "aiokafka.consumer.group_coordinator"):
        logging.getLogger(noisy).setLevel("CRITICAL")  # slow callbacks; no coordinator elected yet
    for routine in (
        "EventProcessor",
        "CatalogueProcessor",
        "mode.services",
        "serving.consume.events",
        "serving.consume.app",
    ):
        logging.getLogger(routine).setLevel("WARNING")


def quiet() -> None:
    """Silence libraries in commands: their errors also arrive as exceptions and would be reported twice."""
    for name in ("aiokafka", "kafka", "mode", "feast", "httpx", *TRAINING_LIBRARIES):
        logging.getLogger(name).setLevel("CRITICAL")
