"""Logs: one readable line by default, one JSON object a line on demand."""

import json
import logging
import sys
import time
from typing import Literal


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, and the traceback where there is one."""

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
    """Send every log line of this process to standard output in the given form."""
    handler = logging.StreamHandler(sys.stdout)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonFormatter() if form == "json" else text)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for chatty in ("aiokafka", "kafka", "mode", "faust", "feast", "httpx", "mlflow", "jgo"):
        logging.getLogger(chatty).setLevel("WARNING")
    for alarmist in ("kafka.net.selector", "aiokafka.consumer.group_coordinator"):
        logging.getLogger(alarmist).setLevel("CRITICAL")  # slow callbacks; a coordinator that is not yet elected
    for routine in (
        "EventProcessor",
        "CatalogueProcessor",
        "mode.services",
        "serving.consume.events",
        "serving.consume.app",
    ):
        logging.getLogger(routine).setLevel("WARNING")


def quiet() -> None:
    """For commands: what goes wrong in a library comes as an exception, so its own lines would only say it twice."""
    for name in ("aiokafka", "kafka", "mode", "feast", "httpx"):
        logging.getLogger(name).setLevel("CRITICAL")
