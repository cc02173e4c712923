"""Control messages on their way into Kafka and back, and what an announcement says of a domain's rollout."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.releases import rollout
from models.releases.manifest import ITEM_KNN
from serving import messages
from serving.errors import MessageError
from serving.messages import FeatureUpdate, ForgetUser, ReleaseAnnouncement, RuleChange
from serving.settings import Settings
from serving.train import trainer
from stream.errors import BrokerError
from testing.random_release import write_random_release

ABSENT = "127.0.0.1:9"
"""No Kafka listens here."""


@pytest.fixture
def releases(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder of three releases of the shop; the newest one serves."""
    root, rng = tmp_path / "releases", np.random.default_rng(0)
    return root, [write_random_release(root, 30, ITEM_KNN, rng) for _ in range(3)]


def test_a_promotion_during_a_shadow_announces_the_shadow(releases: tuple[Path, list[str]]) -> None:
    root, (candidate, shadowed, serving) = releases
    shadow = rollout.begin_shadow(root, "shop", shadowed, 0.5)
    assert messages.release_announcement(root, "shop", "shadow").release == serving
    rollout.promote(root, "shop", candidate)
    topic, key, value = messages.encode(messages.release_announcement(root, "shop", "promote"))
    assert (topic, key) == ("releases", b"shop")
    announcement = messages.decode_announcement(value)
    assert (announcement.release, announcement.action) == (candidate, "promote")
    assert announcement.shadow == shadow
    assert announcement.canary is None


def test_a_rollback_during_a_canary_announces_the_canary(releases: tuple[Path, list[str]]) -> None:
    root, (tried, before, serving) = releases
    canary = rollout.begin_canary(root, "shop", tried, 0.1)
    assert rollout.rollback(root, "shop") == before != serving
    announcement = messages.release_announcement(root, "shop", "rollback")
    assert (announcement.release, announcement.canary) == (before, canary)


def test_the_end_of_a_canary_is_announced_with_its_reason(releases: tuple[Path, list[str]]) -> None:
    root, (tried, _, serving) = releases
    canary = rollout.begin_canary(root, "shop", tried, 0.1)
    rollout.roll_back_canary(root, "shop", canary.salt, "canary-clicks", "fewer clicks")
    announcement = messages.release_announcement(root, "shop", "rollback")
    assert (announcement.release, announcement.canary, announcement.reason) == (serving, None, "canary-clicks")


def test_the_trainer_announces_the_shadow_with_its_promotion(
    releases: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, (candidate, shadowed, _) = releases
    shadow = rollout.begin_shadow(root, "shop", shadowed, 1.0)
    rollout.promote(root, "shop", candidate)
    sent: list[ReleaseAnnouncement] = []
    monkeypatch.setattr(trainer, "publish", lambda _settings, message: sent.append(message))
    trainer.announce(Settings(state=str(root.parent)), "shop", "promote")
    assert [(message.release, message.shadow) for message in sent] == [(candidate, shadow)]


def test_messages_come_back_as_they_were_sent() -> None:
    update = FeatureUpdate("events/3", 17, 1_000, 999, [("shop", "u1")])
    topic, key, value = messages.encode(update)
    assert (topic, key) == ("feature-updates", None)
    assert messages.decode_update(value) == update
    topic, key, value = messages.encode(ForgetUser("u1", 1_000))
    assert (topic, key) == ("forget", None)
    assert messages.decode_forget(value) == ForgetUser("u1", 1_000)
    for definition in (b'{"action": "exclude"}', None):  # None: the rule is deleted
        change = RuleChange("no-tea", definition)
        topic, key, value = messages.encode(change)
        assert (topic, key, value) == ("rules", b"no-tea", definition)
        assert messages.decode_rule_change(key, value) == change


def test_an_update_is_compatible_json() -> None:
    """The wire format is documented: other programs read these topics, too."""
    value = messages.encode(FeatureUpdate("events/0", 5, 2, 1, None))[2]
    expected = {"partition": "events/0", "through": 5, "at": 2, "logged_at": 1, "users": None}
    assert msgspec.json.decode(value or b"") == expected
    value = messages.encode(ReleaseAnnouncement("shop", "r1", "promote", 3))[2]
    expected = {"domain": "shop", "release": "r1", "action": "promote", "at": 3, "canary": None, "shadow": None}
    assert msgspec.json.decode(value or b"") == expected | {"reason": ""}


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'{"domain": 1}', b"\xff"])
def test_a_message_that_is_not_one_names_its_topic(value: bytes | None) -> None:
    for decode, topic in (
        (messages.decode_announcement, "releases"),
        (messages.decode_update, "feature-updates"),
        (messages.decode_forget, "forget"),
    ):
        with pytest.raises(MessageError, match=f"skipped a message on topic {topic}: "):
            decode(value)


def test_publishing_without_kafka_is_a_broker_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "SEND_TIMEOUT_S", 1)
    with pytest.raises(BrokerError, match="no message sent to forget"):
        messages.publish(Settings(kafka=ABSENT), ForgetUser("u1", 1_000))
