"""`coldstream train --once` on a full disk, and with damaged releases in the store."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from features.archive import Archive, ArchiveRow
from models.releases import release_store
from stream.events import Interaction

NOON = 1_760_000_000_000
MINUTE = 60_000


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with an archive: half of the users view the even items, half the odd ones."""
    archive = Archive(tmp_path / "archive")
    rows = []
    for n in range(1_500):
        user, item = f"u{n % 150}", f"i{2 * (n * 7 % 15) + n % 2}"
        rows.append(ArchiveRow(0, n, NOON, Interaction(f"e{n}", user, item, "view", NOON + MINUTE * n)))
    archive.append("events", rows)
    archive.flush()
    return tmp_path


def train_once(state: Path, largest_file: int = resource.RLIM_INFINITY) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, which can write no file above `largest_file` bytes."""
    settings = {"STATE": str(state), "RECOMMENDER": "counts", "KAFKA": "127.0.0.1:9"}
    limits = (largest_file, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    return subprocess.run(
        [sys.executable, "-P", "-m", "serving.cli", "train", "--once"],
        env=os.environ | {f"COLDSTREAM_{name}": value for name, value in settings.items()},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def flip_bit(manifest: Path) -> None:
    """One bit of a text in a manifest, so that the file is no longer UTF-8."""
    content = bytearray(manifest.read_bytes())
    recommender = json.loads(content)["recommender"].encode()
    content[content.index(b'"%s"' % recommender) + 1] ^= 0x80
    manifest.write_bytes(content)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("largest_file", [100, 4_000])
def test_a_full_disk_is_said_in_a_sentence_and_leaves_nothing_half_written(state: Path, largest_file: int) -> None:
    failed = train_once(state, largest_file)
    output = failed.stdout + failed.stderr
    assert failed.returncode not in {0, 3}, output
    assert "Traceback" not in output, output
    assert "cannot be written" in output
    assert "free space" in output
    assert release_store.list_releases(state / "releases", "shop") == []
    assert [path for path in state.rglob("*.tmp") if "trainer" not in path.name] == []
    whole = train_once(state)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert release_store.serving_id(state / "releases", "shop")


@pytest.mark.timeout(300)
def test_damaged_releases_do_not_keep_a_run_from_its_work(state: Path) -> None:
    root = state / "releases"
    releases: list[str] = []
    for _ in range(3):  # the second run finds its serving release damaged, the third an old and the serving one
        done = train_once(state)
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        assert "Traceback" not in output, output
        serving = release_store.current_id(root, "shop")
        assert serving is not None
        assert serving not in releases
        releases.append(serving)
        flip_bit(root / "shop" / serving / "manifest.json")
    states = {release.id: release.state for release in release_store.list_releases(root, "shop")}
    assert set(states) >= set(releases)
    assert "ready" not in {states[release] for release in releases}
