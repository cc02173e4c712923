"""The whole system against a cluster with TLS and SCRAM passwords, with the example of the documentation."""

import json
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from stream.admin import wait_ready
from stream.broker import Broker
from stream.errors import BrokerError
from testing.api import post_actions
from testing.delivery import archived_events
from testing.secured_broker import secured_broker, self_signed
from testing.supervised import COLDSTREAM, supervised_system
from testing.waiting import wait_until

PASSWORD = "pass=word 16"


def documented() -> dict[str, str]:
    """The table `kafka_security` of the example in docs/settings.md."""
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
    example = tomllib.loads(page.split("```toml\n")[1].split("```")[0])
    return dict(example["kafka_security"])


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, dict[str, str]]]:
    """A broker with TLS and a password, and the documented settings with its own values."""
    folder = tmp_path_factory.mktemp("secured")
    certificate = folder / "ca.pem"
    security = documented() | {"sasl_password": PASSWORD, "ssl_cafile": str(certificate)}
    with secured_broker(folder / "broker", security["sasl_username"], PASSWORD, certificate) as broker:
        yield broker, security


def settings_file(folder: Path, kafka: str, security: Mapping[str, str]) -> None:
    lines = [f"kafka = {json.dumps(kafka)}", "[kafka_security]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in security.items()]
    (folder / "coldstream.toml").write_text("\n".join(lines) + "\n", "utf-8")


def totals(client: httpx.Client) -> object:
    answer = client.get("/v1/users/locked/features")
    return answer.json()["summary"]["totals"] if answer.status_code == 200 else None


def run(folder: Path, environment: Mapping[str, str] | None, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [COLDSTREAM, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.timeout(180)
def test_the_documented_settings_run_a_system_behind_tls_and_a_password(
    secured: tuple[Broker, dict[str, str]], tmp_path: Path
) -> None:
    broker, security = secured
    settings_file(tmp_path, broker.bootstrap, security)
    with supervised_system("--no-train", state=tmp_path / "state", folder=tmp_path) as system:
        with httpx.Client(base_url=system.url, timeout=10) as client:
            post_actions(client, "locked", ("view", "a"), ("purchase", "b"))
            wait_until(lambda: totals(client) == {"view": 1, "purchase": 1}, 30, "the events are in the features")
        wait_until(lambda: archived_events(system.state / "archive") == 2, 30, "the events are archived")
        outputs = [run(tmp_path, system.environment, name) for name in ("status", "doctor", "settings")]
        logged = (tmp_path / "state.log").read_text("utf-8")
    assert [code for code, _ in outputs] == [0, 0, 0], outputs
    assert "********" in outputs[2][1]
    assert PASSWORD not in logged + "".join(text for _, text in outputs)


@pytest.mark.parametrize("wrong", [{"sasl_password": "a guess 17"}, {"sasl_username": "stranger"}, {"ssl_cafile": ""}])
def test_what_does_not_let_in_is_a_clear_error(
    secured: tuple[Broker, dict[str, str]], wrong: dict[str, str], tmp_path: Path
) -> None:
    broker, security = secured
    if "ssl_cafile" in wrong:
        (tmp_path / "other.pem").write_bytes(self_signed()[1])
        wrong = {"ssl_cafile": str(tmp_path / "other.pem")}
    with pytest.raises(BrokerError, match="does kafka_security fit it") as error:
        wait_ready(broker.bootstrap, security | wrong, timeout_s=2)
    assert PASSWORD not in str(error.value)
    assert "a guess 17" not in str(error.value)
