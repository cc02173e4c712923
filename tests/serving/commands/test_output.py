"""What commands print: JSON that every parser reads, and one sentence where the output or the request fails."""

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from serving.commands.client import call_api
from serving.commands.output import print_json
from serving.settings import Settings
from stream.errors import ColdstreamError
from testing.supervised import COLDSTREAM


def run(*words: str, output: int = subprocess.PIPE, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: text for name, text in os.environ.items() if not name.startswith("COLDSTREAM_")}
    return subprocess.run(
        [COLDSTREAM, *words],
        env=environment | variables,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"hr": float("nan"), "list": [(1.5, float("-inf"))], "path": Path("x"), "n": {"m": float("inf")}})
    assert json.loads(capsys.readouterr().out) == {"hr": None, "list": [[1.5, None]], "path": "x", "n": {"m": None}}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_output_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("settings", output=full.fileno())
    assert done.returncode == 1
    assert done.stderr == (
        "error: the output cannot be written: No space left on device; free space, or write elsewhere\n"
    )


def test_a_reader_that_ends_early_makes_no_traceback() -> None:
    words = ["bash", "-c", f"{COLDSTREAM} settings --reference | head -c 1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout[1:], done.stderr) == ("", "")


def test_an_id_with_a_dash_is_explained_in_the_help() -> None:
    text = " ".join(run("recommend", "--help", COLUMNS="200").stdout.split())
    assert "before one that begins with a dash, write -- and a blank" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("releases", "list", "--domain", "nope"), "domain 'nope' is not one of shop, music, video, news; to add it"),
        (("import", "x.csv", "--domain", "a/b"), "domain 'a/b' does not fit; a name has a to z, 0 to 9 and _"),
        (("rules", "delete", ""), "the rule's id is empty; `coldstream rules list` shows the ids"),
        (("rules", "check", "none.toml"), "none.toml: cannot be read: No such file or directory; check the path"),
    ],
)
def test_what_does_not_exist_is_named_with_a_cure_that_works(
    words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = run(*words, COLDSTREAM_STATE=str(tmp_path / "state"))
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_a_refused_request_says_which_option_and_what_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [{"key": "n", "message": "Expected `int` >= 1"}, {"index": 0, "reason": "bad-time", "detail": "x"}]
    problem = {"status": 400, "detail": "Validation failed", "errors": fields}
    monkeypatch.setattr(httpx, "request", lambda *_, **__: httpx.Response(400, json=problem))
    with pytest.raises(ColdstreamError, match=r"^400: Validation failed; n: Expected `int` >= 1$"):
        call_api(Settings(), "GET", "/v1/users/recommendations")
