"""Files that are always whole, and locks between processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from stream.files import creating_folder, exclusive, replacing, try_lock, write_atomically

HOLD = """
import sys, time
from pathlib import Path
from stream.files import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_content_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.json"
    write_atomically(path, b"old")
    write_atomically(path, "new: ä")
    assert path.read_bytes() == "new: ä".encode()
    assert [file.name for file in path.parent.iterdir()] == ["state.json"]


def test_an_error_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomically(path, b"old")

    def fail_halfway() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"hal")
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        fail_halfway()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    script = "import os, sys; from pathlib import Path; from stream.files import replacing\n"
    script += "with replacing(Path(sys.argv[1])) as temporary: temporary.write_bytes(b'hal'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert [file.suffix for file in tmp_path.iterdir()] == [".tmp"]
    write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_is_an_error_that_leaves_it_alone(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "trainer.lock"
    path.parent.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        assert try_lock(path) is None
    finally:
        holder.kill()
        holder.wait()
    lock = try_lock(path)
    assert lock is not None
    assert try_lock(path) is None
    lock.release()
    with exclusive(path):
        assert try_lock(path) is None
    assert try_lock(path) is not None


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "releases" / "r1"

    def fail_halfway() -> None:
        with creating_folder(path) as folder:
            (folder / "items.json").write_bytes(b"[]")
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        fail_halfway()
    assert list(path.parent.iterdir()) == []

    (path.parent / ".r1.tmp").mkdir()  # of a killed writer
    (path.parent / ".r1.tmp" / "left.npy").touch()
    with creating_folder(path) as folder:
        (folder / "items.json").write_bytes(b"[]")
    assert [file.name for file in path.iterdir()] == ["items.json"]
    assert list(path.parent.iterdir()) == [path]
