"""Rules, feedback and availability over HTTP: a real broker, a real API, a real consumer, a release on disk."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from models.rerank.exploration import propensities_of
from stream.events import Impression
from testing.api import get_recommendations, item_ids, post_actions
from testing.lookups import write_release
from testing.system import System
from testing.waiting import wait_until

ITEMS = [f"i{n}" for n in range(40)]
NEAR = {"i0": [(f"i{n}", 1.0 - n / 40) for n in range(1, 21)], "i30": [("i1", 1.0), ("i31", 0.9)]}
RULES = '[[rule]]\nid = "from-file"\naction = "exclude"\nitems = ["i20"]\n'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a release of 40 items and a file of rules."""
    folder = tmp_path_factory.mktemp("lookups")
    (folder / "rules.toml").write_text(RULES)
    with System(folder / "state", rules=folder / "rules.toml") as running:
        running.wait_ready()
        write_release(folder / "state" / "releases", ITEMS, NEAR, neighbors=20)
        with httpx.Client(base_url=running.url, timeout=30) as client:
            catalogue = [described(item, "tea" if n % 2 else "cups") for n, item in enumerate(ITEMS)]
            client.put("/v1/items", json=catalogue).raise_for_status()
            token = post_actions(client, "warm", ("view", "i0"))
            wait_until(
                lambda: get_recommendations(client, "warm", after=token)["reason"] == "personal",
                60,
                "the release serves",
            )
        yield running


@pytest.fixture(scope="module")
def client(served: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as opened:
        yield opened


def described(item: str, category: str, **more: Any) -> dict[str, Any]:
    now = int(time.time() * 1000)
    return {"type": "item", "item_id": item, "at": now, "title": item.upper(), "category": category, **more}


def someone(client: httpx.Client, *acts: tuple[str, str]) -> tuple[str, str]:
    """A new user who took i0 and did `acts`, and the token of it."""
    user = uuid4().hex
    return user, post_actions(client, user, ("view", "i0"), *acts)


def test_a_rule_holds_when_its_token_is_reached_and_is_gone_when_deleted(client: httpx.Client) -> None:
    user, token = someone(client)
    assert item_ids(get_recommendations(client, user, n=3, after=token)) == ["i1", "i2", "i3"]
    rule = {"action": "pin", "position": 1, "items": ["i39"]}
    created = client.put("/v1/rules/front", json=rule)
    assert created.status_code == 202
    answer = get_recommendations(client, user, n=3, after=created.json()["token"], explain=True)
    assert (item_ids(answer), answer["applied"]) == (["i39", "i1", "i2"], ["front", "from-file"])
    assert answer["items"][0]["why"]["code"] == "pinned"
    assert answer["items"][1]["why"]["code"] == "because_you_viewed"
    listed = client.get("/v1/rules").json()
    assert {rule["id"]: rule["source"] for rule in listed["rules"]} == {"front": "api", "from-file": "file"}
    assert "coldstream_rules_applied_total" in client.get("/metrics").text
    gone = client.delete("/v1/rules/front")
    assert item_ids(get_recommendations(client, user, n=3, after=gone.json()["token"])) == ["i1", "i2", "i3"]
    assert client.get("/v1/rules/front").status_code == 404
    assert client.delete("/v1/rules/from-file").status_code == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"action": "boost", "items": ["a"]}, "factor"),
        ({"action": "pin", "items": ["a"]}, "position"),
        ({"action": "exclude"}, "every item"),
        ({"action": "exclude", "items": ["a"], "domain": "garden"}, "garden"),
        ({"action": "exclude", "itmes": ["a"]}, "itmes"),
    ],
)
def test_a_bad_rule_is_refused_with_its_cure(client: httpx.Client, body: dict[str, Any], message: str) -> None:
    answer = client.put("/v1/rules/bad", json=body)
    assert answer.status_code == 400
    assert message in answer.json()["detail"]


def test_the_file_is_followed_and_a_bad_one_changes_nothing(client: httpx.Client, served: System) -> None:
    file = Path(served.environment["COLDSTREAM_RULES"])
    user, token = someone(client)
    assert "i20" not in item_ids(get_recommendations(client, user, n=30, after=token))
    file.write_text(RULES + '[[rule]]\nid = "worse"\naction = "lift"\nitems = ["i1"]\n')
    wait_until(lambda: client.get("/v1/rules").json()["file"]["error"], 60, "the bad file is seen")
    assert "line 7" in client.get("/v1/rules").json()["file"]["error"]
    assert "i20" not in item_ids(get_recommendations(client, user, n=30))
    file.write_text(RULES.replace("i20", "i19"))
    wait_until(lambda: "i19" not in item_ids(get_recommendations(client, user, n=30)), 60, "the new file holds")
    assert "i20" in item_ids(get_recommendations(client, user, n=30))
    assert client.get("/v1/rules").json()["file"]["error"] is None
    file.write_text(RULES)
    wait_until(lambda: "i20" not in item_ids(get_recommendations(client, user, n=30)), 60, "the old file holds")


def test_rules_outlive_the_process(client: httpx.Client, served: System) -> None:
    client.put("/v1/rules/kept", json={"action": "exclude", "items": ["i2"]}).raise_for_status()
    served.kill("api")
    served.start("api")
    served.wait_ready()
    user, token = someone(client)
    wait_until(lambda: get_recommendations(client, user)["reason"] == "personal", 60, "the release serves again")
    assert "i2" not in item_ids(get_recommendations(client, user, n=30, after=token))
    gone = client.delete("/v1/rules/kept")
    assert "i2" in item_ids(get_recommendations(client, user, n=30, after=gone.json()["token"]))


def test_negative_feedback_counts_on_the_next_answer(client: httpx.Client) -> None:
    user, token = someone(client)
    before = {item["item_id"]: item["score"] for item in get_recommendations(client, user, after=token)["items"]}
    token = post_actions(client, user, ("hide", "i3"), ("skip", "i30"))
    after = {item["item_id"]: item["score"] for item in get_recommendations(client, user, after=token)["items"]}
    assert "i3" not in after
    assert after["i1"] == pytest.approx(0.8 * before["i1"], rel=1e-3)
    token = post_actions(client, user, *[("view", "i0")] * 60)
    assert "i3" not in item_ids(get_recommendations(client, user, n=40, after=token))
    assert "i3" not in client.get(f"/v1/users/{user}/features").json()["recent"]["items"]
    token = post_actions(client, user, ("like", "i3"))
    assert "i3" in item_ids(get_recommendations(client, user, n=40, after=token))


def test_what_is_out_of_stock_or_expired_is_gone_everywhere(
    client: httpx.Client, record_property: Callable[[str, object], None]
) -> None:
    """Rankings, pins, sessions, similar items. How long it took goes into the report: from the acknowledgement, or from
    when the item expires, to lists without it."""
    user, token = someone(client)
    get_recommendations(client, user, after=token)
    pin = client.put("/v1/rules/pinned", json={"action": "pin", "position": 1, "items": ["i5"]})
    assert item_ids(get_recommendations(client, user, n=2, after=pin.json()["token"]))[0] == "i5"
    visit = {"events": [{"type": "interaction", "event_id": "v", "user_id": "v", "item_id": "i0", "kind": "view"}]}

    def everywhere() -> set[str]:
        visit["events"][0]["at"] = int(time.time() * 1000)  # type: ignore[assignment]
        lists = [
            get_recommendations(client, user, n=40),
            get_recommendations(client, uuid4().hex, n=40),
            client.post("/v1/sessions/recommendations", json={**visit, "n": 40}).json(),
            client.get("/v1/items/i0/similar", params={"n": 40}).json(),
        ]
        return {item for answer in lists for item in item_ids(answer)}

    assert {"i5", "i6"} <= everywhere()
    client.put("/v1/items", json=described("i5", "tea", available=False)).raise_for_status()
    acknowledged = time.monotonic()
    wait_until(lambda: "i5" not in everywhere(), 60, "what is out of stock is gone")
    record_property("out of stock, gone after s", time.monotonic() - acknowledged)
    expires_at = int(time.time() * 1000) + 2_000
    token = client.put("/v1/items", json=described("i6", "cups", expires_at=expires_at)).json()["token"]
    answer = get_recommendations(client, user, n=40, after=token)
    assert "i6" in item_ids(answer) or time.time() * 1000 > expires_at
    wait_until(lambda: "i6" not in everywhere(), 60, "what has expired is gone")
    record_property("expired, gone after s", time.time() - expires_at / 1000)
    for item, category in (("i5", "tea"), ("i6", "cups")):
        back = described(item, category, available=True, expires_at=None)
        token = client.put("/v1/items", json=back).json()["token"]
    get_recommendations(client, user, after=token)
    assert {"i5", "i6"} <= everywhere()
    client.delete("/v1/rules/pinned").raise_for_status()


def next_list(lines: Iterator[str], other_than: list[str], within_s: float = 60) -> list[str]:
    """The items of a stream's next list that differs, within so long. Comments that it lives are passed over, and the
    same list again: a change that it had read already may be announced after it."""
    until_s = time.monotonic() + within_s
    for line in lines:
        if line.startswith("data:") and (items := item_ids(json.loads(line[5:]))) != other_than:
            return items
        if time.monotonic() > until_s:
            break
    pytest.fail(f"no other list than {other_than} within {within_s:g} s")


def answered(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("coldstream_recommendations_total{"))


def test_a_live_stream_follows_rules_stock_and_expiry(
    client: httpx.Client, record_property: Callable[[str, object], None]
) -> None:
    user, token = someone(client)
    assert item_ids(get_recommendations(client, user, n=4, after=token)) == ["i1", "i2", "i3", "i4"]
    with client.stream("GET", f"/v1/users/{user}/recommendations/stream", params={"n": 4}) as answer:
        lines = answer.iter_lines()
        assert next_list(lines, []) == ["i1", "i2", "i3", "i4"]
        client.put("/v1/rules/live", json={"action": "exclude", "items": ["i2"]}).raise_for_status()
        acknowledged = time.monotonic()
        assert next_list(lines, ["i1", "i2", "i3", "i4"]) == ["i1", "i3", "i4", "i5"]
        record_property("rule, list after s", time.monotonic() - acknowledged)
        client.put("/v1/items", json=described("i3", "tea", available=False)).raise_for_status()
        acknowledged = time.monotonic()
        assert next_list(lines, ["i1", "i3", "i4", "i5"]) == ["i1", "i4", "i5", "i6"]
        record_property("out of stock, list after s", time.monotonic() - acknowledged)
        expires_at = int(time.time() * 1000) + 2_000
        client.put("/v1/items", json=described("i4", "cups", expires_at=expires_at)).raise_for_status()
        assert next_list(lines, ["i1", "i4", "i5", "i6"]) == ["i1", "i5", "i6", "i7"]
        assert time.time() * 1000 >= expires_at
        record_property("expired, list after s", time.time() - expires_at / 1000)
        answers_before = answered(client)
        client.put("/v1/items", json=described("i38", "cups", available=False)).raise_for_status()
        wait_until(lambda: answered(client) > answers_before, 60, "the stream looked again")  # and has nothing to say
        client.delete("/v1/rules/live").raise_for_status()
        assert next_list(lines, ["i1", "i5", "i6", "i7"]) == ["i1", "i2", "i5", "i6"]
    on_sale = {"available": True, "expires_at": None}
    back = [described(item, "cups" if int(item[1:]) % 2 == 0 else "tea", **on_sale) for item in ("i3", "i4", "i38")]
    token = client.put("/v1/items", json=back).json()["token"]
    assert item_ids(get_recommendations(client, user, n=4, after=token)) == ["i1", "i2", "i3", "i4"]


def test_imported_items_expire(client: httpx.Client, served: System, tmp_path: Path) -> None:
    """By their file's column; the clock that judges them is the look-up's."""
    now = int(time.time() * 1000)
    soon = now + 20_000
    rows = [f"u{n},{item},{now - 60_000 + n}" for n, item in enumerate(("past", "soon", "later", "never"))]
    (tmp_path / "plays.csv").write_text("\n".join(["user_id,item_id,at", *rows]) + "\n")
    ends = [f"past,{now - 1_000}", f"soon,{soon}", f"later,{now + 86_400_000}", "never,"]
    (tmp_path / "films.csv").write_text("\n".join(["item_id,until", *ends]) + "\n")
    words = ["import", str(tmp_path / "plays.csv"), "--domain", "video", "--items", str(tmp_path / "films.csv")]
    command = [sys.executable, "-m", "serving.cli", *words, "--map", "expires_at=until", "--json"]
    done = subprocess.run(command, env=served.environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

    def films() -> set[str]:
        return set(item_ids(get_recommendations(client, uuid4().hex, domain="video")))

    wait_until(lambda: {"later", "never"} <= films(), 60, "the imported items are known")
    assert "past" not in films()
    assert "soon" in films() or time.time() * 1000 > soon
    wait_until(lambda: films() == {"later", "never"}, 60, "what has expired is gone")
    assert time.time() * 1000 >= soon


def test_new_items_appear_by_category_and_by_exploration(client: httpx.Client) -> None:
    fresh, category = f"new-{uuid4().hex[:6]}", uuid4().hex[:8]
    user, seen = someone(client)
    token = client.put("/v1/items", json=described(fresh, category)).json()["token"]
    assert item_ids(get_recommendations(client, user, category=category, after=f"{token},{seen}")) == [fresh]
    assert item_ids(client.get(f"/v1/items/{fresh}/similar").json()) == []
    other = f"new-{uuid4().hex[:6]}"
    token = client.put("/v1/items", json=described(other, category)).json()["token"]
    get_recommendations(client, user, after=token)
    assert item_ids(client.get(f"/v1/items/{fresh}/similar").json()) == [other]

    def explored() -> bool:
        answer = get_recommendations(client, user, n=5, explore=0.5)
        assert all(0 < item["propensity"] <= 1 for item in answer["items"])
        assert answer["items"][0]["propensity"] == 1
        return fresh in item_ids(answer)

    wait_until(explored, 60, "a new item is explored")


def test_propensities_come_back_with_the_impression(client: httpx.Client) -> None:
    user, token = someone(client)
    answer = get_recommendations(client, user, n=4, explore=0.5, after=token)
    impression = {
        "type": "impression",
        "event_id": uuid4().hex,
        "user_id": user,
        "item_ids": item_ids(answer),
        "at": int(time.time() * 1000),
        "release": answer["release"],
        "request_id": answer["request_id"],
        "context": {"propensities": json.dumps([item["propensity"] for item in answer["items"]])},
    }
    assert client.post("/v1/events", json=impression).status_code == 202
    assert propensities_of(msgspec.convert(impression, Impression)).tolist() == [
        item["propensity"] for item in answer["items"]
    ]


def test_a_request_brings_candidates_rules_and_options(client: httpx.Client) -> None:
    user, token = someone(client)
    body = {"n": 3, "candidates": ["i4", "i2", "i38"], "after": token, "explain": True}
    path = f"/v1/users/{user}/recommendations"
    assert item_ids(client.post(path, json=body).json()) == ["i2", "i4", "i38"]
    rules = [{"id": "own", "action": "boost", "factor": 50, "where": {"category": "cups"}}]
    by_rules = client.post(path, json={"n": 3, "rules": rules, "explain": True}).json()
    assert item_ids(by_rules) == ["i2", "i4", "i6"]
    assert "own" in by_rules["applied"]
    assert by_rules["items"][0]["rules"] == [{"rule": "own", "action": "boost", "factor": 50.0}]
    spread = get_recommendations(client, user, n=4, per_category=2, diversity=0.3)
    assert sorted(int(item_id.removeprefix("i")) % 2 for item_id in item_ids(spread)) == [0, 0, 1, 1]
    for bad in ({"nn": 3}, {"n": 0}, {"diversity": 2}, {"rules": [{"id": "x", "action": "pin", "items": ["a"]}]}):
        answer = client.post(path, json=bad)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


def test_the_schema_names_the_routes(client: httpx.Client) -> None:
    paths = client.get("/docs/openapi.json").json()["paths"]
    assert {"get", "post"} <= set(paths["/v1/users/{user_id}/recommendations"])
    assert {"get", "put", "delete"} <= set(paths["/v1/rules/{rule_id}"])


def test_the_command_line_sends_rules_and_prints_reasons(client: httpx.Client, served: System, tmp_path: Path) -> None:
    def command(*words: str, code: int = 0) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "serving.cli", *words],
            env=served.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == code, ran.stderr
        return ran.stdout + ran.stderr

    user, token = someone(client)
    get_recommendations(client, user, after=token)
    file = tmp_path / "mine.toml"
    file.write_text('[[rule]]\nid = "cli"\naction = "boost"\nfactor = 9\n[rule.where]\ncategory = "cups"\n')
    assert command("rules", "check", str(file)).split()[:3] == ["cli", "boost", "x9"]
    assert command("rules", "put", str(file)).strip() == "1 rules: cli"
    wait_until(lambda: "cli" in get_recommendations(client, user)["applied"], 60, "the rule holds")
    listed = command("rules", "list")
    assert "cli " in listed
    assert "(api)" in listed
    printed = command("recommend", user, "-n", "3", "--diversity", "0.2")
    assert "because you viewed I0, boost by cli" in printed
    command("rules", "delete", "cli")
    wait_until(lambda: "cli" not in get_recommendations(client, user)["applied"], 60, "the rule is gone")
    assert "does not exist" in command("rules", "delete", "cli", code=1)
    file.write_text('[[rule]]\nid = "cli"\naction = "boost"\nitems = ["a"]\n')
    assert "line 1: rule cli: boost needs a factor" in command("rules", "check", str(file), code=1)
