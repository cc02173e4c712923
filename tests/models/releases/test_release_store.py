"""Releases on disk: complete or refused, a single pointer, rollback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.activity import History
from models.errors import ReleaseError
from models.releases import release_store
from models.releases.manifest import FORMAT, ITEM_KNN, read_manifest
from stream.events import KIND_CODES
from testing.random_release import write_random_release

Damage = Callable[[Path], None]


def flip(name: str) -> Damage:
    def damage(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / name).write_bytes(raw)

    return damage


def rewrite(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Another array, with a manifest that vouches for it: only looking at the array finds it out."""

    def damage(folder: Path) -> None:
        np.save(folder / name, change(np.load(folder / name)))
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"][name] = {
            "sha256": release_store._described(folder / name).sha256,
            "bytes": (folder / name).stat().st_size,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def spoil(array: np.ndarray) -> np.ndarray:
    array[0] = np.nan
    return array


def edit_manifest(**fields: Any) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


COMMON: dict[str, tuple[str, Damage]] = {
    "a flipped byte": ("hash-mismatch", flip("popularity.npy")),
    "a flipped byte in the items": ("hash-mismatch", flip("items.json")),
    "a missing file": ("missing-file", lambda folder: (folder / "neighbors.npy").unlink()),
    "no manifest": ("no-manifest", lambda folder: (folder / "manifest.json").unlink()),
    "an earlier format": ("format", edit_manifest(format=2, gate={"checks": "of another shape"})),
    "an impossible history length": ("bad-manifest", edit_manifest(history_length=0)),
    "half a manifest": ("bad-manifest", lambda folder: (folder / "manifest.json").write_text('{"id": "x"')),
    "fewer rows": ("shape-mismatch", rewrite("popularity.npy", lambda array: array[:-1])),
    "neighbors beyond the items": ("shape-mismatch", rewrite("neighbors.npy", lambda array: array + 10_000)),
    "not a number": ("not-finite", rewrite("popularity.npy", spoil)),
}
ENCODED: dict[str, tuple[str, Damage]] = {
    "a flipped byte in the encoder": ("hash-mismatch", flip("transformer.encoder.onnx")),
    "narrower embeddings": ("shape-mismatch", rewrite("transformer.embeddings.npy", lambda array: array[:, :-1])),
    "other repeats": ("shape-mismatch", rewrite("transformer.repeats.npy", lambda array: array[:-1])),
}


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("counts")
    return root, write_random_release(root, 200, ITEM_KNN, np.random.default_rng(0))


@pytest.fixture(scope="module")
def neural(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("neural")
    return root, write_random_release(root, 200, "transformer", np.random.default_rng(0))


def check_refused(release: tuple[Path, str], tmp_path: Path, reason: str, damage: Damage) -> None:
    root = tmp_path / "releases"
    shutil.copytree(release[0], root)
    good = write_random_release(root, 150, ITEM_KNN, np.random.default_rng(1))
    release_store.promote(root, "shop", good)
    damage(root / "shop" / release[1])
    with pytest.raises(ReleaseError) as caught:
        release_store.load(root / "shop" / release[1])
    assert caught.value.reason == reason
    assert str(root) in str(caught.value)
    with pytest.raises(ReleaseError):
        release_store.promote(root, "shop", release[1])
    assert release_store.current_id(root, "shop") == good
    (listed,) = [info for info in release_store.list_releases(root, "shop") if info.id == release[1]]
    assert (listed.state, listed.reason) == ("refused", reason)


@pytest.mark.parametrize("name", list(COMMON))
def test_a_damaged_release_is_refused_and_the_old_one_serves(
    counts: tuple[Path, str], tmp_path: Path, name: str
) -> None:
    check_refused(counts, tmp_path, *COMMON[name])


@pytest.mark.parametrize("name", list(ENCODED))
def test_a_damaged_encoder_is_refused_and_the_old_one_serves(
    neural: tuple[Path, str], tmp_path: Path, name: str
) -> None:
    check_refused(neural, tmp_path, *ENCODED[name])


def test_rollback_restores_earlier_releases(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = write_random_release(tmp_path, 100, ITEM_KNN, rng)  # promoted when it is written
    with pytest.raises(ReleaseError, match="no earlier release"):
        release_store.rollback(tmp_path, "shop")
    second, third = (
        write_random_release(tmp_path, 100, ITEM_KNN, rng),
        write_random_release(tmp_path, 100, ITEM_KNN, rng),
    )
    assert release_store.current_id(tmp_path, "shop") == third
    assert release_store.rollback(tmp_path, "shop") == second
    assert release_store.rollback(tmp_path, "shop") == first
    assert release_store.current_id(tmp_path, "shop") == first
    assert {info.state for info in release_store.list_releases(tmp_path, "shop")} == {"serving", "ready"}


def test_an_unfinished_release_is_not_listed(tmp_path: Path) -> None:
    release = write_random_release(tmp_path, 100, ITEM_KNN, np.random.default_rng(0))
    manifest = read_manifest(tmp_path / "shop" / release)

    def broken(_: Path) -> list[str]:
        raise OSError("the disk is full")

    with pytest.raises(ReleaseError, match=r"cannot be written: the disk is full.*free space"):
        release_store.save(tmp_path, manifest, ["a"], broken)
    assert not list((tmp_path / "shop").glob(".*tmp"))
    assert [info.id for info in release_store.list_releases(tmp_path, "shop")] == [release]


def test_an_earlier_format_is_refused_with_a_clear_message(counts: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "releases"
    shutil.copytree(counts[0], root)
    folder = root / "shop" / counts[1]
    edit_manifest(format=2)(folder)
    with pytest.raises(ReleaseError) as caught:
        release_store.load(folder)
    assert caught.value.detail == (
        f"{folder}: release format 2 cannot be read by this version (format {FORMAT}); train a new one"
    )


def test_a_release_reads_as_many_events_as_it_was_trained_on(counts: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "releases"
    shutil.copytree(counts[0], root)
    folder = root / "shop" / counts[1]
    first, other, *_ = item_ids = release_store.load(folder).item_ids
    history = History([first] + [other] * 60, [KIND_CODES["purchase"]] * 61, list(range(61)), [None] * 61)
    scores = {}
    for length in (50, 61):
        edit_manifest(history_length=length)(folder)
        scores[length] = release_store.load(folder).scores([history])[0]
    newest = History(history.items[-50:], history.kinds[-50:], history.times[-50:], history.values[-50:])
    edit_manifest(history_length=61)(folder)
    assert len(item_ids) == 200
    np.testing.assert_array_equal(scores[50], release_store.load(folder).scores([newest])[0])
    assert not np.array_equal(scores[50], scores[61])
