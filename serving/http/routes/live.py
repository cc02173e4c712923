"""The live stream of a user's recommendations."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.params import FromPath
from litestar.response import ServerSentEvent, ServerSentEventMessage

from serving.http.live_streams import LiveStream
from serving.http.routes.lookup_options import InjectedLookup
from serving.http.routes.parameters import InjectedService
from serving.http.service import Service
from serving.recommend.answer import Answer
from serving.recommend.request import LookupRequest

HEARTBEAT_S: Final = 15.0

ShownItem = tuple[str, str | None, str | None]
"""Item, title and category: a list that differs only in scores is not sent again."""


@get("/v1/users/{user_id:str}/recommendations/stream", tags=["recommendations"], summary="The same, live")
async def stream_recommendations(
    request: Request[Any, Any, Any], service: InjectedService, user_id: FromPath[str], lookup: InjectedLookup
) -> ServerSentEvent:
    """Server-sent events: a list at once, and a new one whenever features, release, rules or items change it."""
    address = request.client.host if request.client is not None else ""
    stream = service.streams.open(lookup.domain, user_id, address)
    return ServerSentEvent(changing_lists(service, user_id, lookup, stream))


async def changing_lists(
    service: Service, user_id: str, request: LookupRequest, stream: LiveStream
) -> AsyncIterator[ServerSentEventMessage]:
    """The current list, then one for each change of the user's features or of the release.

    After a change of items or rules in the domain, another one if it differs. A comment shows that the stream is alive
    if nothing was sent for `HEARTBEAT_S`.
    """
    signal = stream.signal
    ranking = msgspec.structs.replace(request, explore=0.0)  # exploration draws differ between look-ups: no change
    before: list[ShownItem] | None = None
    sent_at = time.monotonic()
    try:
        while not service.closing.is_set():
            certain = signal.consume()
            async with service.streams.turns:
                answer = await service.recommend(user_id, request)
                unexplored = answer if ranking == request else await service.recommend(user_id, ranking)
            shown = _shown(unexplored.answer)
            if certain or shown != before:
                before, sent_at = shown, time.monotonic()
                data, request_id = answer.body.decode(), answer.answer.request_id
                yield ServerSentEventMessage(data=data, event="recommendations", id=request_id)
            while not signal.is_set() and not service.closing.is_set():
                try:
                    await asyncio.wait_for(signal.wait(), max(0.0, sent_at + HEARTBEAT_S - time.monotonic()))
                except TimeoutError:
                    sent_at = time.monotonic()
                    yield ServerSentEventMessage(comment="still here")
    finally:
        stream.close()


def _shown(answer: Answer) -> list[ShownItem]:
    return [(item.item_id, item.title, item.category) for item in answer.items]
