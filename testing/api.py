"""Requests to a running API, as the tests send them."""

import time
from typing import Any
from uuid import uuid4

import httpx


def post_actions(client: httpx.Client, user: str, *actions: tuple[str, str]) -> str:
    """Post a user's (kind, item) interactions, a millisecond apart; the token of the answer."""
    now = int(time.time() * 1000)
    events = [
        {"type": "interaction", "event_id": uuid4().hex, "user_id": user, "item_id": item, "kind": kind, "at": now + n}
        for n, (kind, item) in enumerate(actions)
    ]
    answer = client.post("/v1/events", json=events)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["token"])


def get_recommendations(client: httpx.Client, user: str, **query: Any) -> dict[str, Any]:
    """The answer to a look-up, which has to succeed."""
    answer = client.get(f"/v1/users/{user}/recommendations", params=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def item_ids(answer: dict[str, Any]) -> list[str]:
    """The ids of the items in an answer, in its order."""
    return [item["item_id"] for item in answer["items"]]
