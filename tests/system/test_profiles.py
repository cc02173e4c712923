"""A profile over HTTP: put, carried by Kafka into Feast, read by the next look-up of a release that asks for it."""

import time
from typing import Any

import httpx

from features.offline import OfflineStore
from models.releases import release_store
from testing.api import get_recommendations, item_ids, post_actions
from testing.system import System
from testing.waiting import wait_until


def put(client: httpx.Client, user: str, attributes: dict[str, Any]) -> None:
    at = int(time.time() * 1000)
    body = [{"type": "user", "user_id": user, "at": at, "attributes": attributes}]
    client.put("/v1/users", json=body).raise_for_status()


def test_a_changed_profile_changes_the_next_answer(own_system: System) -> None:
    # imports TensorFlow, which every worker would otherwise wait for when it collects this folder
    from testing.encoders import fit_on_tastes, save_and_load
    from testing.interactions import OLD, YOUNG

    root = own_system.state / "releases"
    release_store.promote(root, "shop", save_and_load(fit_on_tastes("profile", profile=True), root).id)
    with httpx.Client(base_url=own_system.url, timeout=30) as client:
        put(client, "ann", OLD)
        token = post_actions(client, "ann", ("view", "tea"))

        def serves() -> bool:
            return bool(get_recommendations(client, "ann", after=token)["reason"] == "personal")

        def recommended() -> list[str]:
            return item_ids(get_recommendations(client, "ann", **query))

        wait_until(serves, 60, "the release serves")
        query: dict[str, Any] = {"n": 1, "exclude_seen": True}
        wait_until(lambda: recommended() == ["b"], 60, "the profile is known")
        put(client, "ann", YOUNG)
        wait_until(lambda: recommended() == ["a"], 60, "the changed profile is known")
        event = {"type": "interaction", "event_id": "v1", "user_id": "v", "item_id": "tea", "kind": "view"}
        for profile, expected in ((YOUNG, "a"), (OLD, "b")):
            visit = {"events": [{**event, "at": int(time.time() * 1000)}], "profile": profile, **query}
            answer = client.post("/v1/sessions/recommendations", json=visit)
            assert answer.status_code == 200, answer.text
            assert item_ids(answer.json()) == [expected]
    offline = OfflineStore(own_system.state / "archive", ["shop"])
    wait_until(offline.path("shop_profile").exists, 60, "the archive process fills Feast's offline store")
    wait_until(lambda: len(offline.profile_history("shop")) == 2, 60, "both profiles of ann are in it")
