"""Time from kill -9 of a consumer, which is started again at once, until its partitions are served again.

`python -m benchmarks.takeover [--times 5] [--consumers 1] [--json]`. An event of every partition is sent when the
consumer is killed; a partition is served again once its event is in the features. The start of the process is part of
the time, and is printed for comparison.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import httpx

from stream.record_batches import Partitioner
from testing.second_consumer import owned_partitions, second_consumer
from testing.system import READY_WITHIN_S, System
from testing.waiting import wait_until

PARTITIONS: Final = 4
POLL_S: Final = 0.02


def measure(times: int, consumers: int) -> list[dict[str, float]]:
    """For each kill: seconds until the process answers, and until every partition is served again."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="coldstream-takeover-"))
        system = stack.enter_context(System(Path(folder) / "state"))
        system.wait_ready()
        if consumers > 1:
            url, _ = stack.enter_context(second_consumer(system))
            wait_until(lambda: owned_partitions(url) == PARTITIONS // 2, READY_WITHIN_S, "two partitions each")
        return [_kill_once(system) for _ in range(times)]


def _kill_once(system: System) -> dict[str, float]:
    wait_until(system.caught_up, READY_WITHIN_S, "nothing waits")
    system.kill("consumer")
    killed = time.monotonic()
    system.start("consumer")
    users = _one_user_a_partition()
    now = int(time.time() * 1000)
    common = {"type": "interaction", "item_id": "i", "kind": "view", "at": now}
    events = [common | {"user_id": user, "event_id": uuid4().hex} for user in users]
    httpx.post(f"{system.url}/v1/events", json=events, timeout=30).raise_for_status()
    answers = 0.0
    while not answers or not all(_is_applied(system, user) for user in users):
        if not answers and _answers(system):
            answers = time.monotonic() - killed
        time.sleep(POLL_S)
    return {"process_s": answers, "served_s": time.monotonic() - killed}


def _one_user_a_partition() -> list[str]:
    partition_of = Partitioner().partition_of
    users: dict[int, str] = {}
    while len(users) < PARTITIONS:
        user = uuid4().hex
        users.setdefault(partition_of(user.encode(), PARTITIONS), user)
    return list(users.values())


def _is_applied(system: System, user: str) -> bool:
    return httpx.get(f"{system.url}/v1/users/{user}/features", timeout=30).status_code == 200


def _answers(system: System) -> bool:
    try:
        return httpx.get(system.metrics_url("consumer"), timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def show(rows: list[dict[str, float]]) -> None:
    """Print a table."""
    print("kill   process answers, s   partitions served, s")
    for number, row in enumerate(rows, 1):
        print(f"{number:>4}{row['process_s']:>21.1f}{row['served_s']:>23.1f}")
    process, served = (statistics.median(row[name] for row in rows) for name in ("process_s", "served_s"))
    print(f"median{process:>19.1f}{served:>23.1f}")


def main(arguments: list[str] | None = None) -> int:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--consumers", type=int, default=1, choices=(1, 2))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = [*measure(options.times, options.consumers)]
    print(json.dumps(rows, indent=2)) if options.json else show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
