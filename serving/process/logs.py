"""Logging: readable lines by default, or one JSON object per line."""

import json
import logging
import sys
import time
from typing import Literal


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, logger, message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(form: Literal["text", "json"] = "text", level: str = "info") -> None:
    """Log to standard output in the given format."""
    handler = logging.StreamHandler(sys.stdout)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for verbose in ("aiokafka", "kafka", "mode", "faust", "feast", "httpx", "mlflow", "jgo"):
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
    for name in ("aiokafka", "kafka", "mode", "feast", "httpx"):
        logging.getLogger(name).setLevel("CRITICAL")
