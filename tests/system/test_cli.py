"""The way a user goes: up, import, train, ask, stop, rebuild, up again; all through the command line."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.process.native_output import NOISE
from testing.foreign_modules import foreign_modules
from testing.stores import differing_rows
from testing.supervised import SupervisedSystem, supervised_system
from testing.waiting import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def command(system: dict[str, str], *words: str, code: int = 0, within_s: float = 120) -> str:
    """What a command says on its standard output; it has to end with `code`."""
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", *words],
        env=system,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert [line for line in done.stderr.splitlines() if NOISE.search(line)] == []
    return done.stdout if code == 0 else done.stderr


def table(folder: Path) -> Path:
    """3,000 purchases of 40 users: after item n comes n + 1."""
    file = folder / "events.csv"
    now = int(time.time())
    rows = [f"u{n % 40},i{(n // 40 + n) % 30},{now - 10_000 + n}" for n in range(3_000)]
    file.write_text("\n".join(["uid,sku,ts", *rows, rows[-1], "u1,i1,yesterday"]) + "\n")
    items = "\n".join(f"i{n},Thing {n},{'ABC'[n % 3]}" for n in range(30))
    (folder / "items.csv").write_text(f"item_id,title,category\n{items}\n")
    return file


def test_a_day_with_the_command_line(tmp_path: Path) -> None:
    file, state = table(tmp_path), tmp_path / "state"
    work = foreign_modules(tmp_path / "work")
    with supervised_system("--no-train", state=state, folder=work) as system:
        variables = system.environment
        options = ("--items", str(tmp_path / "items.csv"), "--kind", "purchase", "--rejects", str(tmp_path / "bad.csv"))
        imported = json.loads(
            command(variables, "import", str(file), "--map", "user_id=uid,item_id=sku,at=ts", *options, "--json")
        )
        assert (imported["report"]["read"], imported["report"]["kept"], imported["sent"]["events"]) == (
            3_002,
            3_000,
            3_000,
        )
        assert "yesterday" in (tmp_path / "bad.csv").read_text()
        wait_until(lambda: _status(variables)["events"] == 3_000, 60, "everything is in the features")
        assert _status(variables)["lag"] == 0
        again = json.loads(
            command(variables, "import", str(file), "--map", "user_id=uid,item_id=sku,at=ts", *options, "--json")
        )
        assert again["sent"]["events"] == 0  # it goes on where it was
        trained = json.loads(command(variables, "train", "--once", "--json", within_s=240))  # it waits for the archive
        assert _status(variables)["archived rows"] >= 3_030
        assert trained["serving"] in trained["trained"]
        wait_until(lambda: _serving(system) == trained["serving"], 60, "the release serves")
        answer = json.loads(command(variables, "recommend", "u3", "-n", "5", "--explain", "--json"))
        assert answer["reason"] == "personal"
        assert len(answer["items"]) == 5
        assert answer["items"][0]["title"].startswith("Thing")
        assert "personal" in command(variables, "recommend", "u3")
        assert json.loads(command(variables, "features", "show", "u3"))["summary"]["totals"] == {"purchase": 75}
        assert trained["serving"] in command(variables, "releases", "list")
        assert command(variables, "dead-letters", "list").strip() == "0 dead letters"
        assert "a system runs on" in command(variables, "reset", "--yes", code=1)
        assert "a system runs on" in command(variables, "features", "rebuild", code=1)
        assert "already runs" in command(variables, "up", code=1)
        findings = {load["what"]: load["state"] for load in json.loads(command(variables, "doctor", "--json"))}
        assert "fail" not in findings.values()
        profile = {
            "type": "user",
            "user_id": "u3",
            "at": int(time.time() * 1000),
            "segment": "s",
            "attributes": {"a": 1},
        }
        token = httpx.put(f"{system.url}/v1/users", json=profile).raise_for_status().json()["token"]
        httpx.get(f"{system.url}/v1/users/u3/recommendations?after={token}").raise_for_status()
        before = httpx.get(f"{system.url}/v1/users/u3/features").json()["profile"]
    assert "no API at" in command(variables, "recommend", "u3", code=1)
    shutil.copytree(state / "feast", tmp_path / "live")
    report = json.loads(command(variables, "features", "rebuild", "--json"))
    assert (report["events"], report["users"]) == (3_000, 40)
    assert {**report["catalogue"], "updates": 0} == {"updates": 0, "items": 30, "profiles": 1, "sent": 0}
    assert differing_rows(tmp_path / "live", state / "feast") == []
    began = time.monotonic()
    with supervised_system("--no-train", state=state) as system:
        assert time.monotonic() - began < 120
        row = httpx.get(f"{system.url}/v1/users/u3/features").json()
        assert (row["summary"]["totals"], row["profile"]) == ({"purchase": 75}, before)
        assert _serving(system) == trained["serving"]
    command(variables, "reset", "--yes")
    assert not state.exists()
    assert _status(variables)["api"] == "not answering"


def test_what_is_asked_wrongly_is_answered_in_a_line(tmp_path: Path) -> None:
    import os

    variables = {**os.environ, "COLDSTREAM_STATE": str(tmp_path / "state")}
    for words, message in [
        (("--settings", "none.toml", "settings"), "no such settings file"),
        (("replay", "netflix"), "no data set 'netflix'"),
        (("replay", "globo"), "asks for the folder"),
        (("import", "none.csv"), "none.csv"),
        (("releases", "rollback"), "no earlier release"),
        (("train", "--once"), "no events are archived"),
    ]:
        answer = command(variables, *words, code=1)
        assert message in answer
        assert "Traceback" not in answer


def test_a_second_ctrl_c_is_not_needed(tmp_path: Path) -> None:
    with supervised_system("--no-train", "--no-archive", state=tmp_path / "state") as system:
        subprocess.run(["kill", f"-{int(signal.SIGINT)}", str(system.pid)], check=True)

        def gone() -> bool:
            try:
                httpx.get(f"{system.url}/healthz", timeout=1)
            except httpx.TransportError:
                return True
            return False

        wait_until(gone, 60, "the API is gone")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_docs_page_shows_the_routes_in_a_browser(system: Any, tmp_path: Path) -> None:
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    words = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={tmp_path}"]
    page = subprocess.run(
        [*words, "--virtual-time-budget=8000", "--dump-dom", f"{system.url}/docs"],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    ).stdout
    assert "/v1/users/{user_id}/recommendations" in page.replace("\u200b", "").replace("<wbr>", "")
    assert "Coldstream" in page


def _status(variables: dict[str, str]) -> dict[str, Any]:
    words = [sys.executable, "-m", "serving.cli", "status", "--json"]
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=120, check=False)
    status: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == any(status[part] != "up" for part in ("api", "consumer", "archive"))
    return status


def _serving(system: SupervisedSystem) -> str | None:
    serving: str | None = httpx.get(f"{system.url}/v1/releases").json()["shop"]["serving"]
    return serving
