"""`status`, `doctor` and the API from elsewhere: over IPv6, under other addresses, and from a network of its own.

The system listens on `::`; its broker has listeners on 127.0.0.1, on ::1, and on an address that a container would use.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from stream.child_process import python_command, start_child
from testing.api import get_recommendations, post_actions
from testing.network_namespace import NetworkNamespace, network_namespace
from testing.ports import free_port
from testing.relay import relay_to
from testing.supervised import COLDSTREAM
from testing.system import System
from testing.waiting import answers, wait_until

WITHIN_S = 240
PROCESSES = ("api", "consumer", "archive", "trainer")
pytestmark = pytest.mark.timeout(600)


class RemoteSystem(NamedTuple):
    """A running system, where its broker is reached over IPv6 and from the namespace, and the namespace (or None)."""

    system: System
    ipv6: str
    outside: str
    namespace: NetworkNamespace | None


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteSystem]:
    folder = tmp_path_factory.mktemp("remote")
    with network_namespace() as namespace:
        system = System(folder / "state", host="::")
        port, over_ipv6, over_namespace, controller = system.broker.port, free_port(), free_port(), free_port()
        ipv6, outside = f"[::1]:{over_ipv6}", f"{namespace.outside if namespace else '127.0.0.2'}:{over_namespace}"
        listeners = f"PLAINTEXT://127.0.0.1:{port},IPV6://{ipv6},OUTSIDE://{outside}"
        names = ("PLAINTEXT", "IPV6", "OUTSIDE", "CONTROLLER")
        system.broker.settings |= {
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
        }
        system.environment["COLDSTREAM_KAFKA"] = ipv6
        with system:
            system.wait_ready()
            yield RemoteSystem(system, ipv6, outside, namespace)


def elsewhere(remote: RemoteSystem, folder: Path, host: str, kafka: str) -> dict[str, str]:
    """The environment of a container: another home, no state folder, and addresses of all parts."""
    ours = remote.system.environment
    ports = {name: value for name, value in ours.items() if name.startswith("COLDSTREAM_") and name.endswith("_PORT")}
    hosts = {f"COLDSTREAM_{process.upper()}_HOST": host for process in PROCESSES}
    away = {"HOME": str(folder), "COLDSTREAM_STATE": str(folder / "none"), "COLDSTREAM_KAFKA": kafka}
    kept = {name: ours[name] for name in ("PATH", "COLDSTREAM_CACHE") if name in ours}
    return {**kept, **ports, **hosts, **away}


def run(
    environment: dict[str, str], folder: Path, command: str, namespace: NetworkNamespace | None = None
) -> tuple[int, Any]:
    words: Sequence[str] = [COLDSTREAM, command, "--json"]
    words = namespace.command(words) if namespace is not None else words
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout)


def assert_well(remote: RemoteSystem, folder: Path, host: str, kafka: str, namespace: NetworkNamespace | None) -> None:
    """`status` and `doctor` see every part, and nothing is created."""
    environment = elsewhere(remote, folder, host, kafka)
    code, status = run(environment, folder, "status", namespace)
    assert (code, status["supervised"], status["brokers"], status["not ready"]) == (0, False, 1, {}), status
    assert [status[part] for part in ("broker", "api", "consumer", "archive")] == ["up"] * 4
    code, findings = run(environment, folder, "doctor", namespace)
    states = {finding["what"]: finding for finding in findings}
    assert code == 0, [finding for finding in findings if finding["state"] == "fail"]
    for process in ("api", "consumer", "archive"):
        (state,) = (finding["state"] for what, finding in states.items() if what.startswith(f"{process} at "))
        assert state == "ok"
    assert states["topics"]["detail"].endswith(f" on {kafka}")
    assert states["log"]["state"] == "ok"
    assert not (folder / "none").exists()


def test_a_whole_system_over_ipv6_and_status_without_its_state_folder(remote: RemoteSystem, tmp_path: Path) -> None:
    with httpx.Client(base_url=remote.system.url, timeout=30) as client:
        assert remote.system.url.startswith("http://[::1]:")
        token = post_actions(client, "ann", ("view", "i1"))
        get_recommendations(client, "ann", after=token)
        assert client.get("/v1/users/features", params={"user_id": "ann"}).json()["summary"]["totals"] == {"view": 1}
    assert_well(remote, tmp_path, "::1", remote.ipv6, None)


def test_under_another_address_of_this_machine(remote: RemoteSystem, tmp_path: Path) -> None:
    kafka = f"127.0.0.1:{remote.system.broker.port}"
    environment = elsewhere(remote, tmp_path, "127.0.0.2", kafka)
    code, status = run(environment, tmp_path, "status")
    assert (code, status["api"], status["broker"]) == (0, "up", "up"), status


def test_from_a_network_of_its_own(remote: RemoteSystem, tmp_path: Path) -> None:
    if remote.namespace is None:
        pytest.skip("this user may not make a network namespace (CAP_NET_ADMIN)")
    assert_well(remote, tmp_path, remote.namespace.outside, remote.outside, remote.namespace)


def test_what_does_not_answer_is_named(remote: RemoteSystem, tmp_path: Path) -> None:
    closed = f"127.0.0.2:{free_port()}"
    environment = elsewhere(remote, tmp_path, "127.0.0.3", closed) | {"COLDSTREAM_API_METRICS_PORT": str(free_port())}
    code, status = run(environment, tmp_path, "status")
    assert (code, status["broker"], status["api"], status["consumer"]) == (1, "not answering", "not answering", "up")
    code, findings = run(environment, tmp_path, "doctor")
    states = {finding["what"]: (finding["state"], finding["cure"]) for finding in findings}
    assert (code, states["Kafka"]) == (1, ("fail", "start the cluster, or correct kafka"))
    (api,) = (state for what, state in states.items() if what.startswith("api at 127.0.0.3:"))
    assert api == ("warn", "start it, or correct api_host and api_metrics_port")


def test_a_broker_that_advertises_an_address_that_is_not_reached(remote: RemoteSystem, tmp_path: Path) -> None:
    if remote.namespace is None:
        pytest.skip("this user may not make a network namespace (CAP_NET_ADMIN)")
    with relay_to(remote.system.broker.port, remote.namespace.outside) as relay:
        environment = elsewhere(remote, tmp_path, remote.namespace.outside, relay.address)
        code, status = run(environment, tmp_path, "status", remote.namespace)
        assert (code, status["broker"], status["api"]) == (1, "not answering", "up")
        code, findings = run(environment, tmp_path, "doctor", remote.namespace)
        (kafka,) = (finding for finding in findings if finding["what"] == "Kafka")
        assert (code, kafka["state"]) == (1, "fail")
        assert f"its brokers say they are at 127.0.0.1:{remote.system.broker.port}" in kafka["detail"]
        assert "advertised.listeners" in kafka["detail"]


def test_an_api_on_ipv6_loopback_alone(remote: RemoteSystem, tmp_path: Path) -> None:
    ports = {f"COLDSTREAM_{name}": str(free_port()) for name in ("PORT", "API_METRICS_PORT")}
    state = {"COLDSTREAM_STATE": str(tmp_path / "state"), "COLDSTREAM_HOST": "::1"}
    log = (tmp_path / "api.log").open("wb")
    process = start_child(
        python_command("serving.http.app"), env=remote.system.environment | ports | state, stdout=log, stderr=log
    )
    try:
        url = f"http://[::1]:{ports['COLDSTREAM_PORT']}"
        wait_until(lambda: process.poll() is not None or answers(f"{url}/healthz"), WITHIN_S, "the API answers")
        assert answers(f"http://[::1]:{ports['COLDSTREAM_API_METRICS_PORT']}/healthz")
        assert not answers(f"http://127.0.0.1:{ports['COLDSTREAM_PORT']}/healthz")
        wait_until(lambda: f"listening on {url}" in (tmp_path / "api.log").read_text(), 60, "its address is logged")
    finally:
        process.terminate()
        process.wait(60)
        log.close()
