"""A profile over HTTP: put, carried by Kafka into Feast, read by the next look-up of a release that asks for it."""

import time
from typing import Any

import httpx
import pytest

from benchmarks.kill import System
from models.releases import release_store
from tests.system.conftest import until
from tests.system.test_lookups import act, look, shown


def put(client: httpx.Client, user: str, attributes: dict[str, Any]) -> None:
    at = int(time.time() * 1000)
    body = [{"type": "user", "user_id": user, "at": at, "attributes": attributes}]
    client.put("/v1/users", json=body).raise_for_status()


@pytest.mark.timeout(400)
def test_a_changed_profile_changes_the_next_answer(own_system: System) -> None:
    # imports TensorFlow, which every worker would otherwise wait for when it collects this folder
    from tests.contracts.test_encoders import OLD, YOUNG, of_tastes, released

    root = own_system.state / "releases"
    release_store.promote(root, "shop", released(of_tastes("profile", profile=True), root).id)
    with httpx.Client(base_url=f"http://127.0.0.1:{own_system.port}", timeout=30) as client:
        put(client, "ann", OLD)
        token = act(client, "ann", ("view", "tea"))
        until(lambda: look(client, "ann", after=token)["reason"] == "personal", 30, "the release serves")
        asked: dict[str, Any] = {"n": 1, "exclude_seen": True}
        until(lambda: shown(look(client, "ann", **asked)) == ["b"], 30, "the profile is known")
        put(client, "ann", YOUNG)
        until(lambda: shown(look(client, "ann", **asked)) == ["a"], 30, "the changed profile is known")
        event = {"type": "interaction", "event_id": "v1", "user_id": "v", "item_id": "tea", "kind": "view"}
        for profile, first in ((YOUNG, "a"), (OLD, "b")):
            visit = {"events": [{**event, "at": int(time.time() * 1000)}], "profile": profile, **asked}
            found = client.post("/v1/sessions/recommendations", json=visit)
            assert found.status_code == 200, found.text
            assert shown(found.json()) == [first]
