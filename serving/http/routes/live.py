"""The live stream of a user's lists: a new one when the features change, when a release does, or what may be shown."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from litestar.response import ServerSentEventMessage

from serving.http.service import Service
from serving.recommend.answer import Answer
from serving.recommend.request import LookupRequest

HEARTBEAT_S: Final = 15.0

Shown = list[tuple[str, str | None, str | None]]
"""Items with titles and categories: a list that differs in scores alone is not sent again."""


async def lists(service: Service, user_id: str, ask: LookupRequest) -> AsyncIterator[ServerSentEventMessage]:
    """The list of this moment, then one for each change of the user's features or of the release.

    Where items or rules of the domain changed, one more if it differs. A comment says that the stream lives where there
    was nothing to say for `HEARTBEAT_S`.
    """
    watch = service.updates.watch(ask.domain, user_id)
    steady = msgspec.structs.replace(ask, explore=0.0)  # two draws of one look-up differ, and nothing has changed
    before: Shown | None = None
    spoke = time.monotonic()
    try:
        while not service.closing.is_set():
            sure = watch.take()
            found = await service.recommend(user_id, ask)
            same = found if steady == ask else await service.recommend(user_id, steady)
            shown = _shown(same.answer)
            if sure or shown != before:
                before, spoke = shown, time.monotonic()
                data, number = found.body.decode(), found.answer.request_id
                yield ServerSentEventMessage(data=data, event="recommendations", id=number)
            while not watch.is_set() and not service.closing.is_set():
                try:
                    await asyncio.wait_for(watch.wait(), max(0.0, spoke + HEARTBEAT_S - time.monotonic()))
                except TimeoutError:
                    spoke = time.monotonic()
                    yield ServerSentEventMessage(comment="still here")
    finally:
        service.updates.unwatch(ask.domain, user_id, watch)


def _shown(answer: Answer) -> Shown:
    return [(one.item_id, one.title, one.category) for one in answer.items]
