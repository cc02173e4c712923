"""Three brokers with replicated topics: one is killed under load, and comes back with an empty disk."""

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from features.store import open_store
from serving.consume.events import GROUP
from serving.process.state_folder import prepare_state_folder
from serving.process.supervisor import MODULES
from stream.admin import cluster_state, create_topics, describe
from stream.child_process import python_command, start_child
from stream.topics import topics
from testing.cluster import Cluster
from testing.environment import system_environment
from testing.freshness import BATCH, FreshnessLoad
from testing.system import DOMAINS
from testing.waiting import wait_until

RECOVERS_WITHIN_S = 10
REJOINS_WITHIN_S = 90
CALM_S = 2
WATCHED_S = 6
"""How long the load goes on after a kill."""


@contextmanager
def consumer(cluster: Cluster, state: Path) -> Iterator[str]:
    """A consumer process of the cluster, once it has read every partition; the address of its metrics."""
    variables = system_environment(
        state, kafka=cluster.bootstrap, replication=3, min_insync_replicas=2, popularity_every_ms=300
    )
    with (state / "consumer.log").open("wb") as log:
        process = start_child(python_command(MODULES["consumer"]), env=variables, stdout=log, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{variables['COLDSTREAM_CONSUMER_METRICS_PORT']}/metrics"
    try:
        yield url
        assert process.poll() is None, "the consumer lives through everything"
    finally:
        process.terminate()
        process.wait(60)


def test_a_killed_and_emptied_broker_costs_no_event_and_ten_seconds(tmp_path: Path) -> None:
    state = tmp_path / "state"
    prepare_state_folder(state)
    with Cluster(tmp_path / "cluster") as cluster:
        create_topics(cluster.bootstrap, None, topics(4), replication=3, min_insync_replicas=2)
        assert {topic.replicas for topic in describe(cluster.bootstrap).values()} == {3}
        with consumer(cluster, state):
            figures = asyncio.run(killed_emptied_killed(cluster, state))
    print(figures)
    assert figures["acknowledged"] > 1_000
    assert (figures["lost"], figures["counted_twice"]) == (0, 0)
    assert max(figures["recovered_s"]) < RECOVERS_WITHIN_S


async def killed_emptied_killed(cluster: Cluster, state: Path) -> dict[str, Any]:
    """Under load: the broker that leads the quorum is killed, comes back with an empty disk, and is in sync; then the
    one that coordinates the consumer is killed, so that the emptied one has to carry on with the third."""
    store = open_store(state / "feast", "sqlite", DOMAINS)
    load = FreshnessLoad(cluster.bootstrap, store)
    writing, watching = asyncio.create_task(load.write()), asyncio.create_task(load.watch())
    fresh = "the consumer has applied what waited for it"
    await asyncio.to_thread(wait_until, lambda: load.samples and load.unapplied < 2 * BATCH, 300, fresh)
    calm = time.monotonic()
    await asyncio.sleep(CALM_S)
    leader = await asyncio.to_thread(cluster.active_controller)
    first = await killed(cluster, leader)
    cluster.empty(leader)
    started = time.monotonic()
    await asyncio.to_thread(cluster.start, [leader])
    await asyncio.to_thread(wait_until, lambda: in_sync(cluster), REJOINS_WITHIN_S, "the emptied broker is in sync")
    rejoined = time.monotonic() - started
    coordinator = await cluster.coordinator(GROUP)
    assert coordinator != leader
    second = await killed(cluster, coordinator)
    load.stopping.set()
    await asyncio.wait_for(asyncio.gather(writing, watching), 60)
    applied = load.applied()
    store.close()
    return {
        "acknowledged": load.acknowledged.total(),
        "sent_again": load.retries,
        "lost": (load.acknowledged - applied).total(),
        "counted_twice": (applied - load.acknowledged).total(),
        "usual_s": round(load.median(calm, first[0]), 2),
        "recovered_s": [round(load.recovered_after(*span), 1) for span in (first, second)],
        "in_sync_again_s": round(rejoined, 1),
    }


async def killed(cluster: Cluster, number: int) -> tuple[float, float]:
    """Kill a broker, and let the load go on for a while; when that began and ended."""
    at = time.monotonic()
    cluster.kill(number)
    await asyncio.sleep(WATCHED_S)
    return at, time.monotonic()


def in_sync(cluster: Cluster) -> bool:
    state = cluster_state(cluster.bootstrap)
    return state.brokers == 3 and state.under_replicated == 0
