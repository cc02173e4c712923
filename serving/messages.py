"""Control messages: what the processes tell each other over Kafka. The only module that encodes and decodes them.

| topic             | message               | key     | sent by                              |
|-------------------|-----------------------|---------|--------------------------------------|
| `releases`        | `ReleaseAnnouncement` | domain  | trainer, command line, API (canary)  |
| `rules`           | `RuleChange`          | rule id | API                                  |
| `feature-updates` | `FeatureUpdate`       | none    | consumer, to the events' partition   |
| `forget`          | `ForgetUser`          | none    | any producer                         |
| `events`, `users` | `UserDeletion`        | user id | consumer, for each of `forget`       |

`releases` and `rules` are compacted: the newest message of a key has to say everything.
"""

import time
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from models.releases import arms, release_store
from models.releases.arms import Arm
from serving.errors import MessageError
from serving.settings import Settings
from stream import topics
from stream.client import kafka_python_config
from stream.errors import BrokerError

FETCH_BYTES: Final = 16 * 1024 * 1024
"""Largest request of a producer, and largest fetch per partition of a consumer, on control topics and `events`."""
SEND_TIMEOUT_S: Final = 10

Message = TypeVar("Message")

KafkaMessage = tuple[str, bytes | None, bytes | None]
"""Topic, key and value; a value of None is a tombstone."""


class ReleaseAnnouncement(msgspec.Struct, frozen=True):
    """A domain's serving release, canary or shadow changed by `action`, at `at` (epoch ms): all three as they are now.

    `reason` says why the newest canary or shadow ended.
    """

    domain: str
    release: str
    action: str
    at: int
    canary: Arm | None = None
    shadow: Arm | None = None
    reason: str = ""


class RuleChange(msgspec.Struct, frozen=True):
    """A rule was added or changed (`definition` is its JSON) or deleted (`definition` is None)."""

    rule_id: str
    definition: bytes | None


class FeatureUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """The features contain every event of `partition` (`events/3`) through the offset `through`.

    `users` are (domain, user) pairs whose features changed, or None where there are too many to list.
    `at` is when the features were written, `logged_at` the broker's time of the last event (both epoch ms; 0 in a
    report of a position, which each partition's consumer sends every two seconds). `stopped` says why the partition
    waits, with the cure. `behind`: events of it were forwarded, and stand at these offsets of other partitions: only
    with them do the features contain everything.
    """

    partition: str
    through: int
    at: int
    logged_at: int
    users: list[tuple[str, str]] | None
    stopped: str = ""
    behind: dict[str, int] = {}


class ForgetUser(msgspec.Struct, frozen=True):
    """Delete a user's features in every domain; `at` is epoch ms."""

    user_id: str
    at: int


class UserDeletion(msgspec.Struct, frozen=True, tag_field="type", tag="deletion"):
    """A `ForgetUser` among a user's events and updates: those before it are erased, those after it count.

    `origin`: partition (`forget/0`) and offset of the message; a consumer that was killed may send it twice.
    """

    user_id: str
    at: int
    origin: tuple[str, int]


_announcement_decoder = msgspec.json.Decoder(ReleaseAnnouncement)
_update_decoder = msgspec.json.Decoder(FeatureUpdate)
_forget_decoder = msgspec.json.Decoder(ForgetUser)
_deletion_decoder = msgspec.json.Decoder(UserDeletion)
_encode = msgspec.json.Encoder().encode


def release_announcement(root: Path, domain: str, action: str) -> ReleaseAnnouncement:
    """What a domain serves, and its canary and shadow, after `action`; read from the folder of releases `root`."""
    rollout, serving = arms.read_or_none(root, domain), release_store.serving_id(root, domain) or ""
    reason = rollout.ended[-1].reason if rollout.ended else ""
    return ReleaseAnnouncement(
        domain,
        serving,
        action,
        at=int(time.time() * 1000),
        canary=rollout.canary,
        shadow=rollout.shadow,
        reason=reason,
    )


def encode(message: ReleaseAnnouncement | RuleChange | FeatureUpdate | ForgetUser) -> KafkaMessage:
    """A message as Kafka stores it."""
    if isinstance(message, ReleaseAnnouncement):
        return topics.RELEASES, message.domain.encode(), _encode(message)
    if isinstance(message, RuleChange):
        return topics.RULES, message.rule_id.encode(), message.definition
    if isinstance(message, ForgetUser):
        return topics.FORGET, None, _encode(message)
    return topics.FEATURE_UPDATES, None, _encode(message)


def decode_announcement(value: bytes | None) -> ReleaseAnnouncement:
    """A message of `releases`. Raises MessageError."""
    return _decode(_announcement_decoder, topics.RELEASES, value)


def decode_rule_change(key: bytes | None, value: bytes | None) -> RuleChange:
    """A message of `rules`; whether the definition is a valid rule is for `serving.rules` to say."""
    return RuleChange((key or b"").decode("utf-8", "replace"), value)


def decode_update(value: bytes | None) -> FeatureUpdate:
    """A message of `feature-updates`. Raises MessageError."""
    return _decode(_update_decoder, topics.FEATURE_UPDATES, value)


def decode_forget(value: bytes | None) -> ForgetUser:
    """A message of `forget`. Raises MessageError."""
    return _decode(_forget_decoder, topics.FORGET, value)


def encode_deletion(deletion: UserDeletion) -> list[KafkaMessage]:
    """The records that carry a deletion to the writers of the user's rows."""
    key, value = deletion.user_id.encode(), _encode(deletion)
    return [(topics.EVENTS, key, value), (topics.USERS, key, value)]


def decode_deletion(key: bytes | None, value: bytes | None) -> UserDeletion | None:
    """The deletion in a record of `events` or `users`; None where it is something else."""
    try:
        deletion = _deletion_decoder.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return deletion if key == deletion.user_id.encode() else None


def publish(settings: Settings, message: ReleaseAnnouncement | ForgetUser) -> None:
    """Send one message and wait for its acknowledgement, at most 10 s; for processes without an async producer.

    Raises:
        BrokerError: Kafka does not answer, or does not acknowledge.
    """
    from kafka import KafkaProducer  # not for the API and the consumer, which import this module
    from kafka.errors import KafkaError

    topic, key, value = encode(message)
    config = kafka_python_config(settings.bootstrap, settings.kafka_security)
    try:
        producer = KafkaProducer(**config, acks="all", bootstrap_timeout_ms=SEND_TIMEOUT_S * 1000)
        try:
            producer.send(topic, value, key).get(SEND_TIMEOUT_S)
        finally:
            producer.close(SEND_TIMEOUT_S)
    except KafkaError as error:
        raise BrokerError(f"no message sent to {topic} ({type(error).__name__}: {error}); is Kafka running?") from error


def _decode(decoder: msgspec.json.Decoder[Message], topic: str, value: bytes | None) -> Message:
    try:
        return decoder.decode(value or b"")
    except (ValueError, RecursionError) as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
        raise MessageError(f"skipped a message on topic {topic}: {error}") from None
