"""Replays into a real broker: in order, at the speed asked for, and resumable."""

import json
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition

from stream.broker import Broker
from stream.errors import StreamError
from stream.events import Interaction
from stream.replay import CHUNK, ReplayOptions, ReplayProgress, replay, shift_to_now
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions
from testing.environment import system_environment
from testing.supervised import COLDSTREAM

EVENTS = 20_000
WEEK_MS = 7 * 24 * 60 * 60 * 1000


def source(folder: Path, seconds: int = 1) -> Source:
    """Events a second apart (or so many) of 50 users, with a catalogue of two items."""
    rows = "\n".join(f"u{n % 50},i{n % 7},{1_700_000_000 + n * seconds}" for n in range(EVENTS))
    (folder / "e.csv").write_text(f"user_id,item_id,at\n{rows}\n")
    (folder / "i.csv").write_text("item_id,title\ni1,One\ni2,Two\n")
    return open_table(folder / "e.csv", TableOptions(items=folder / "i.csv"))


def logged(broker: Broker, topic: str = "events") -> list[Interaction]:
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap)
    places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    values = []
    while any(consumer.position(place) < ends[place] for place in places):
        for messages in consumer.poll(500).values():
            values += [message.value for message in messages]
    consumer.close()
    return [msgspec.json.decode(value, type=Interaction) for value in values] if topic == "events" else values


def test_a_replay_that_is_stopped_goes_on_where_it_was(fresh_broker: Broker, tmp_path: Path) -> None:
    data, place = source(tmp_path), tmp_path / "place.json"
    stop = threading.Event()

    def tell(progress: ReplayProgress) -> None:
        if progress.phase == "events":
            stop.set()

    first = replay(data, fresh_broker.bootstrap, resume_file=place, progress=tell, stop=stop)
    assert CHUNK <= first.events <= 2 * CHUNK < EVENTS  # the chunk that is acknowledged first, and the one behind it
    assert not first.finished
    second = replay(data, fresh_broker.bootstrap, resume_file=place)
    assert second.finished
    assert (second.before, second.before + second.events, second.total) == (first.events, EVENTS, EVENTS)
    third = replay(data, fresh_broker.bootstrap, resume_file=place)
    assert third.events == 0
    events = logged(fresh_broker)
    assert len(events) == EVENTS
    assert len({event.event_id for event in events}) == EVENTS
    by_user: dict[str, list[int]] = {}
    for event in events:
        by_user.setdefault(event.user_id, []).append(event.at)
    assert all(times == sorted(times) for times in by_user.values())
    assert Counter(len(times) for times in by_user.values()) == {EVENTS // 50: 50}
    assert len(logged(fresh_broker, "items")) == 2  # those of the file; of others the events say nothing


def test_speed_is_kept_and_times_are_shifted(broker: Broker, tmp_path: Path) -> None:
    data = source(tmp_path)
    shift = shift_to_now(data.end, int(time.time() * 1000))
    assert shift % WEEK_MS == 0
    began = time.monotonic()
    done = replay(
        data,
        broker.bootstrap,
        None,
        ReplayOptions(speed=1_000, until=data.start + 3_000_000, shift_ms=shift),
    )
    assert done.events == 3_000
    assert 2.9 <= time.monotonic() - began < 60
    newest = max(event.at for event in logged(broker))  # what other tests wrote there is years older
    assert newest == data.start + 2_999_000 + shift
    assert time.time() * 1000 - WEEK_MS - EVENTS * 1_000 < newest <= time.time() * 1000


def test_a_place_of_other_data_is_refused(broker: Broker, tmp_path: Path) -> None:
    data, place = source(tmp_path), tmp_path / "place.json"
    replay(data, broker.bootstrap, None, ReplayOptions(until=data.start + 10_000), resume_file=place)
    with pytest.raises(StreamError, match="another data set, window or cleaning"):
        replay(data, broker.bootstrap, resume_file=place)
    place.write_text("not json")
    with pytest.raises(StreamError, match="not a resume file"):
        replay(data, broker.bootstrap, resume_file=place)
    with pytest.raises(StreamError, match="speed=0 is not above 0"):
        replay(data, broker.bootstrap, None, ReplayOptions(speed=0))


@pytest.mark.timeout(600)
def test_the_json_report_of_the_command_accounts_for_every_line(fresh_broker: Broker, tmp_path: Path) -> None:
    rows = ["1,10,4.5,1700000000", "1,11,3.0,1700000001", "2,10,5.0,1700000002", "2,10,5.0,1700000002"]
    (tmp_path / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows, "3,10,x,yesterday", ""]))
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,Heat (1995),Action\n11,Ran (1985),Drama\n")
    environment = system_environment(tmp_path / "state", kafka=fresh_broker.bootstrap)

    def run() -> dict[str, Any]:
        command = [COLDSTREAM, "replay", f"movielens-small:{tmp_path}", "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    first = run()
    names = ("source", "domain", "items", "users", "events", "before", "total", "finished", "shift_ms")
    assert [first[name] for name in names] == ["movielens-small", "video", 2, 0, 3, 0, 3, True, 0]
    assert first["compared"] == f"the log at {fresh_broker.bootstrap} and the archive {tmp_path / 'state' / 'archive'}"
    assert first["seconds"] > 0
    report = first["report"]
    assert (report["read"], report["kept"]) == (5, 3)
    assert len(logged(fresh_broker)) == 3
    again = run()
    assert [again[name] for name in ("events", "before", "total")] == [0, 3, 3]
    assert again["report"] == report
