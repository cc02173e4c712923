"""Static membership of consumer groups: a consumer that is killed and started again has its partitions back at once.

Each process is a member under a name of its own (Kafka's `group.instance.id`). While a member with that name is in the
group, a process that joins under it takes over its partitions without a rebalance. A clean stop leaves the group.

aiokafka joins as a static member, and neither leaves as one nor notices that another process took its name over: it
would join again and take the name back. `follow_instance` does both (decision 0030).
"""

import logging
import re
import socket
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.group import HeartbeatResponse_v1, JoinGroupRequest
from aiokafka.protocol.types import Int32, Schema, String

from serving.errors import InstanceError
from serving.settings import Settings
from stream.files import try_lock

FENCED_INSTANCE_ID: Final = 82
"""Kafka's error: the name belongs to a process that joined later."""
SLOTS: Final = 1_000
NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")

log = logging.getLogger("coldstream.consumer")


class Instance:
    """The name of this process in the consumer groups, locked in the state folder until the process ends."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.state_path / "consumers"
        name = settings.consumer_id
        if name is not None:
            if NAME.fullmatch(name) is None:
                raise InstanceError(
                    f"consumer_id={name!r} is not a name; give up to 200 letters, digits, dots, _ and -"
                )
            self.name, self.lock = name, try_lock(folder / f"{name}.lock")
            if self.lock is None:
                raise InstanceError(
                    f"another consumer with consumer_id={name!r} is running with the state folder "
                    f"{settings.state_path}; stop it, or give each consumer a consumer_id of its own"
                )
            return
        place = f"{socket.gethostname()}-{blake2b(str(folder.resolve()).encode(), digest_size=4).hexdigest()}"
        for slot in range(SLOTS):
            self.name, self.lock = re.sub(r"[^A-Za-z0-9._-]", "-", f"{place}-{slot}"), try_lock(folder / f"{slot}.lock")
            if self.lock is not None:
                return
        raise InstanceError(f"{SLOTS} consumers are running with the state folder {settings.state_path}")

    def release(self) -> None:
        """Another process may have the name."""
        if self.lock is not None:
            self.lock.release()


class InstanceHeartbeatResponse(Response):  # type: ignore[misc]  # aiokafka has no types
    """Version 3 of the response, which aiokafka does not have."""

    API_KEY = 12
    API_VERSION = 3
    SCHEMA = HeartbeatResponse_v1.SCHEMA


class InstanceHeartbeatStruct(RequestStruct):  # type: ignore[misc]  # aiokafka has no types
    """Version 3 of the request: with the member's instance id."""

    API_KEY = 12
    API_VERSION = 3
    RESPONSE_TYPE = InstanceHeartbeatResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
    )


class InstanceHeartbeat(Request[InstanceHeartbeatStruct]):  # type: ignore[misc]  # aiokafka has no types
    """A heartbeat that the broker answers with `FENCED_INSTANCE_ID` once another member has the instance id."""

    API_KEY = 12

    def __init__(self, group: str, generation: int, member: str, instance: str) -> None:
        self._values = (group, generation, member, instance)

    def build(self, request_struct_class: type[InstanceHeartbeatStruct]) -> InstanceHeartbeatStruct:
        """The request as it is sent."""
        return request_struct_class(*self._values)


def follow_instance(consumer: AIOKafkaConsumer, on_fenced: Callable[[], None]) -> None:
    """Call `on_fenced` once another process has joined under this started consumer's name, and join no more.

    Before it joins as a new member, a consumer that was a member asks the broker whose the name is now.
    """
    coordinator: Any = consumer._coordinator
    send, group, instance = coordinator._send_req, coordinator.group_id, coordinator._group_instance_id
    member, generation, fenced = "", -1, False

    def fence() -> None:
        nonlocal fenced
        fenced = True
        on_fenced()

    async def send_as_instance(request: Any) -> Any:
        nonlocal member, generation
        if not isinstance(request, JoinGroupRequest):
            return await send(request)
        if not fenced and member and not request._member_id:
            answer = await send(InstanceHeartbeat(group, generation, member, instance))
            if answer.error_code == FENCED_INSTANCE_ID:
                fence()
        if fenced:
            raise KafkaError(f"another process joined {group} as {instance}")
        response = await send(request)
        if response.error_code == FENCED_INSTANCE_ID:
            fence()
        elif response.error_code == 0:
            member, generation = response.member_id, response.generation_id
        return response

    coordinator._send_req = send_as_instance


def leave_at_stop(consumer: AIOKafkaConsumer) -> None:
    """Leave the group when the consumer stops, so that others take its partitions at once."""
    coordinator: Any = consumer._coordinator
    if coordinator is not None:
        coordinator._group_instance_id = None


def rejoin(consumer: AIOKafkaConsumer) -> None:
    """Join the group again, as the member that it is."""
    coordinator: Any = consumer._coordinator
    log.info("joining %s again: partitions were added", coordinator.group_id)
    coordinator.request_rejoin()
