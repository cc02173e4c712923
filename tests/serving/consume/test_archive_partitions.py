"""What the archive process says about damaged parts."""

from pathlib import Path

import pytest

from features.archive import DamagedPart
from serving.consume import archiver
from serving.consume.archive_partitions import damage_message
from serving.settings import read
from stream.files import try_lock


@pytest.mark.parametrize(
    ("beginning", "words"),
    [
        (0, "it is written again from the log"),
        (14, "offsets 10 to 13 are lost to the archive: the log starts there; the others are written again"),
        (20, "offsets 10 to 19 are lost to the archive: the log starts at 20"),
    ],
)
def test_what_is_lost_is_named(beginning: int, words: str) -> None:
    part = DamagedPart(Path("events-3-10.parquet.damaged"), "events", 3, 10, 20)
    message = damage_message(part, beginning)
    assert message == f"events/3 from offset 10 was damaged and is kept as events-3-10.parquet.damaged; {words}"


def test_a_second_archive_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serving.process.logs.configure", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.nice", lambda _: 0)
    lock = try_lock(tmp_path / archiver.LOCK_FILE)
    assert lock is not None
    assert archiver.main(read(flags={"state": str(tmp_path)})) == 1
    assert f"another archive process writes {tmp_path / 'archive'}" in caplog.text
    lock.release()
