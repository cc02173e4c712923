"""The whole system against a cluster with TLS and SCRAM passwords, with the example of the documentation."""

import json
import re
import subprocess
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from stream.admin import wait_ready
from stream.broker import Broker
from stream.login_check import LoginError
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


def test_the_documented_settings_run_a_system_behind_tls_and_a_password(
    secured: tuple[Broker, dict[str, str]], tmp_path: Path
) -> None:
    broker, security = secured
    settings_file(tmp_path, broker.bootstrap, security)
    with supervised_system("--no-train", state=tmp_path / "state", folder=tmp_path) as system:
        with httpx.Client(base_url=system.url, timeout=10) as client:
            post_actions(client, "locked", ("view", "a"), ("purchase", "b"))
            wait_until(lambda: totals(client) == {"view": 1, "purchase": 1}, 60, "the events are in the features")
        wait_until(lambda: archived_events(system.state / "archive") == 2, 60, "the events are archived")
        outputs = [run(tmp_path, system.environment, name) for name in ("status", "doctor", "settings")]
        logged = (tmp_path / "state.log").read_text("utf-8")
    assert [code for code, _ in outputs] == [0, 0, 0], outputs
    assert "********" in outputs[2][1]
    assert PASSWORD not in logged + "".join(text for _, text in outputs)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sasl_password": "a guess 17"}, "rejected the login"),
        ({"sasl_username": "stranger"}, "rejected the login"),
        ({"sasl_mechanism": "PLAIN"}, "does not accept this kind of login"),
        ({"ssl_cafile": "other.pem"}, "certificate of 127.0.0.1:"),
        ({"security_protocol": "SASL_PLAINTEXT"}, "speaks TLS, and security_protocol is SASL_PLAINTEXT"),
        ({"security_protocol": "SSL"}, "it may want a login or a client certificate"),
        (None, "speaks TLS, and security_protocol is PLAINTEXT"),
    ],
)
def test_what_does_not_let_in_is_a_clear_error_at_once(
    secured: tuple[Broker, dict[str, str]], wrong: dict[str, str] | None, words: str, tmp_path: Path
) -> None:
    broker, security = secured
    (tmp_path / "other.pem").write_bytes(self_signed()[1])
    if wrong and "ssl_cafile" in wrong:
        wrong = {"ssl_cafile": str(tmp_path / "other.pem")}
    began = time.monotonic()
    with pytest.raises(LoginError, match=re.escape(words)) as error:
        wait_ready(broker.bootstrap, _changed(security, wrong))
    assert time.monotonic() - began < 30
    assert PASSWORD not in str(error.value)
    assert "a guess 17" not in str(error.value)


def _changed(security: dict[str, str], wrong: dict[str, str] | None) -> dict[str, str]:
    if wrong is None:
        return {}
    changed = security | wrong
    if changed["security_protocol"] == "SSL":
        return {name: value for name, value in changed.items() if not name.startswith("sasl_")}
    if changed["security_protocol"] == "SASL_PLAINTEXT":
        return {name: value for name, value in changed.items() if not name.startswith("ssl_")}
    return changed


def test_tls_at_a_port_without_tls_and_an_unknown_host_are_clear_errors(
    secured: tuple[Broker, dict[str, str]],
) -> None:
    broker, security = secured
    inner = broker.settings["listeners"].split("PLAINTEXT://")[1].split(",")[0]
    with pytest.raises(LoginError, match=f"{inner} does not speak TLS"):
        wait_ready(inner, security)
    with pytest.raises(LoginError, match=r"the host no-such-host\.invalid is not known"):
        wait_ready("no-such-host.invalid:9092", security)


def test_commands_end_soon_with_the_reason(secured: tuple[Broker, dict[str, str]], tmp_path: Path) -> None:
    broker, security = secured
    settings_file(tmp_path, broker.bootstrap, security | {"sasl_password": "a guess 17"})
    for arguments in (["topics"], ["up", "--no-train"], ["consumer"]):
        began = time.monotonic()
        code, output = run(tmp_path, None, *arguments)
        assert code != 0
        assert "rejected the login" in output, output
        assert time.monotonic() - began < 60  # the start of Python on a busy machine included
        assert "a guess 17" not in output
