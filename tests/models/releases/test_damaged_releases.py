"""Releases damaged in every way: refused by name with a reason, and never in the way of the whole ones."""

import json
import os
import shutil
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.activity import History
from models.errors import ReleaseError
from models.releases import arms, release_store, rollout
from models.releases.manifest import ITEM_KNN, File
from models.releases.release_files import MAX_JSON_BYTES
from testing.random_release import write_random_release

Damage = Callable[[Path], None]


def vouch(folder: Path, name: str) -> None:
    """Let the manifest name a file as it is now."""
    described = release_store._described(folder / name)
    edit(folder, files=manifest_of(folder)["files"] | {name: {"sha256": described.sha256, "bytes": described.bytes}})


def manifest_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return content


def edit(folder: Path, **fields: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest_of(folder) | fields))


def manifest(**fields: Any) -> Damage:
    return lambda folder: edit(folder, **fields)


def parameters(**fields: Any) -> Damage:
    return lambda folder: edit(folder, params=manifest_of(folder)["params"] | fields)


def content(name: str, raw: bytes) -> Damage:
    """A file of other content, which the manifest vouches for."""

    def damage(folder: Path) -> None:
        (folder / name).write_bytes(raw)
        vouch(folder, name)

    return damage


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Another array, which the manifest vouches for."""

    def damage(folder: Path) -> None:
        np.save(folder / name, change(np.load(folder / name)))
        vouch(folder, name)

    return damage


def header(shape: str, descr: str = "<f4", body: bytes = b"") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body


def as_folder(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def as_link(name: str) -> Damage:
    """The same content, behind a link that leads out of the folder."""

    def damage(folder: Path) -> None:
        outside = folder.parent.parent.parent / f"outside-{name}"
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return damage


def as_fifo(folder: Path) -> None:
    (folder / "popularity.npy").unlink()
    os.mkfifo(folder / "popularity.npy")


def flip_top_bit(folder: Path) -> None:
    raw = bytearray((folder / "manifest.json").read_bytes())
    raw[raw.index(b'"item-knn"') + 1] ^= 0x80
    (folder / "manifest.json").write_bytes(raw)


def linked_folder(folder: Path) -> None:
    shutil.move(folder, folder.parent.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent.parent / "elsewhere")


def renamed_file(folder: Path) -> None:
    outside = folder.parent / "outside.npy"
    shutil.copy(folder / "popularity.npy", outside)
    described = manifest_of(folder)["files"]
    edit(folder, files=described | {"../outside.npy": described["popularity.npy"]})


def twice(folder: Path) -> None:
    items = json.loads((folder / "items.json").read_text())
    content("items.json", json.dumps([items[0], *items[:-1]]).encode())(folder)


DAMAGES: dict[str, tuple[str, Damage]] = {
    "a flipped top bit": ("bad-manifest", flip_top_bit),
    "not UTF-8 where nobody looks": (
        "bad-manifest",
        lambda folder: (folder / "manifest.json").write_bytes(
            (folder / "manifest.json").read_bytes().replace(b"{", b'{"\xff": 1,', 1)
        ),
    ),
    "a deep manifest": ("bad-manifest", lambda folder: (folder / "manifest.json").write_bytes(b"[" * 100_000)),
    "deep parameters": (
        "bad-manifest",
        lambda folder: (folder / "manifest.json").write_bytes(
            (folder / "manifest.json").read_bytes().replace(b'"params":', b'"params": {"x": ' + b"[" * 100_000, 1)
        ),
    ),
    "null": ("bad-manifest", lambda folder: (folder / "manifest.json").write_bytes(b"null")),
    "an empty manifest": ("bad-manifest", lambda folder: (folder / "manifest.json").write_bytes(b"")),
    "a huge manifest": (
        "bad-manifest",
        lambda folder: os.truncate(folder / "manifest.json", MAX_JSON_BYTES + 1),
    ),
    "400 digits": ("bad-manifest", manifest(created_at=10**400)),
    "400 digits among the parameters": ("shape-mismatch", parameters(neighbors=10**400)),
    "a time after every calendar": ("bad-manifest", manifest(cutoff_at=2**60)),
    "the manifest of another release": ("bad-manifest", manifest(id="20200101T000000-000000")),
    "the manifest of another domain": ("bad-manifest", manifest(domain="news")),
    "a manifest that is a folder": ("not-a-file", as_folder("manifest.json")),
    "a manifest behind a link": ("not-a-file", as_link("manifest.json")),
    "a release behind a link": ("not-a-file", linked_folder),
    "a name that leads out": ("bad-name", renamed_file),
    "a file that is a folder": ("not-a-file", as_folder("neighbors.npy")),
    "a file behind a link": ("not-a-file", as_link("items.json")),
    "a pipe": ("not-a-file", as_fifo),
    "a missing file": ("missing-file", lambda folder: (folder / "similarities.npy").unlink()),
    "a shorter file": ("hash-mismatch", lambda folder: os.truncate(folder / "popularity.npy", 64)),
    "no items": ("missing-file", manifest(files={})),
    "an item twice": ("duplicate-items", twice),
    "items of other types": ("unreadable", content("items.json", b"[1, null]")),
    "items that are not UTF-8": ("unreadable", content("items.json", b'["\xff"]')),
    "items as a deep list": ("unreadable", content("items.json", b"[" * 100_000)),
    "no array": ("bad-array", content("popularity.npy", b"")),
    "a pickle": ("bad-array", content("popularity.npy", b"\x80\x04K\x01.")),
    "an array of objects": ("bad-array", content("popularity.npy", header("(200,)", "|O"))),
    "400 GB": ("bad-array", content("popularity.npy", header("(100000000000,)"))),
    "a negative size": ("bad-array", content("popularity.npy", header("(-1,)"))),
    "an array without dimensions": ("bad-array", content("popularity.npy", header("()", body=b"\0\0\0\0"))),
    "code in a header": ("bad-array", content("popularity.npy", header("__import__('os').getcwd()"))),
    "complex popularity": ("bad-array", array("popularity.npy", lambda values: values.astype(np.complex64))),
    "texts": ("bad-array", array("popularity.npy", lambda values: values.astype("U4"))),
    "infinite popularity": ("not-finite", array("popularity.npy", lambda values: values + np.float32(np.inf))),
    "negative popularity": ("shape-mismatch", array("popularity.npy", lambda values: -values)),
    "popularity as a table": ("shape-mismatch", array("popularity.npy", lambda values: values[:, None])),
    "neighbors as floats": ("shape-mismatch", array("neighbors.npy", lambda values: values.astype(np.float32))),
    "neighbors of three dimensions": ("shape-mismatch", array("neighbors.npy", lambda values: values[:, :, None])),
    "an unknown recommender": ("missing-file", manifest(recommender="oracle")),
    "parameters of other types": ("shape-mismatch", parameters(neighbors="many")),
    "members that are no list": ("shape-mismatch", manifest(params={"members": 7, "weights": 1})),
}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Two releases of item-kNN, older and newer; the newer one serves."""
    root, rng = tmp_path_factory.mktemp("plain") / "releases", np.random.default_rng(0)
    return root, write_random_release(root, 200, ITEM_KNN, rng), write_random_release(root, 200, ITEM_KNN, rng)


@pytest.fixture
def copied(releases: tuple[Path, str, str], tmp_path: Path) -> tuple[Path, str, str]:
    root = tmp_path / "deep" / "releases"
    shutil.copytree(releases[0], root)
    return root, releases[1], releases[2]


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_damaged_release_is_refused_by_name_and_the_others_stay_usable(
    copied: tuple[Path, str, str], name: str
) -> None:
    (root, whole, damaged), (reason, damage) = copied, DAMAGES[name]
    damage(root / "shop" / damaged)
    with pytest.raises(ReleaseError) as caught:
        release_store.load(root / "shop" / damaged)
    assert caught.value.reason == reason
    assert damaged in caught.value.detail
    states = {info.id: info.state for info in release_store.list_releases(root, "shop")}
    assert states[whole] == "ready"
    with pytest.raises(ReleaseError):
        rollout.promote(root, "shop", damaged)
    assert release_store.load(root / "shop" / whole).scores([History()]).shape == (1, 200)
    rollout.promote(root, "shop", whole)
    assert release_store.current_id(root, "shop") == whole


DAMAGED_POINTERS: dict[str, bytes] = {
    "not UTF-8": b'{"release":"\xff"}',
    "deep": b"[" * 100_000,
    "empty": b"",
    "a name that leads out": b'{"release":"../../elsewhere"}',
    "a number": b'{"release":7}',
    "a share of 400 digits": b'{"canary":{"release":"a","share":' + b"9" * 400 + b',"began_at":0,"salt":"aa"}}',
    "a salt that is none": b'{"canary":{"release":"a","share":0.1,"began_at":0,"salt":"' + b"x" * 999 + b'"}}',
    "a time of 400 digits": b'{"canary":{"release":"a","share":0.1,"began_at":1' + b"0" * 400 + b',"salt":"aa"}}',
}


@pytest.mark.parametrize("name", list(DAMAGED_POINTERS))
@pytest.mark.parametrize("file", ["current.json", "rollout.json"])
def test_a_damaged_pointer_stops_no_listing_and_a_promotion_mends_it(
    copied: tuple[Path, str, str], file: str, name: str
) -> None:
    (root, older, newer), path = copied, copied[0] / "shop" / file
    path.write_bytes(DAMAGED_POINTERS[name])
    expected = {"current.json": "bad-pointer", "rollout.json": "bad-rollout"}[file]
    problems = release_store.problems(root, "shop")
    assert {info.id for info in release_store.list_releases(root, "shop")} == {older, newer}
    release_store.retire(root, "shop")
    release_store.promote(root, "shop", older)
    assert release_store.current_id(root, "shop") == older
    if file == "current.json":
        assert [error.reason for error in problems] == [expected]
        assert "releases promote" in problems[0].detail
        assert release_store.problems(root, "shop") == []
    elif problems:
        assert [error.reason for error in problems] == [expected]
        assert "delete it" in problems[0].detail


def test_a_pointer_that_is_a_folder_is_damaged(copied: tuple[Path, str, str]) -> None:
    root, older, newer = copied
    (root / "shop" / "current.json").unlink()
    (root / "shop" / "current.json").mkdir()
    assert [error.reason for error in release_store.problems(root, "shop")] == ["bad-pointer"]
    assert {info.state for info in release_store.list_releases(root, "shop")} == {"ready"}
    with pytest.raises(ReleaseError):
        release_store.current_id(root, "shop")
    assert [older, newer] == sorted(info.id for info in release_store.list_releases(root, "shop"))


def test_a_damaged_refusal_still_refuses(copied: tuple[Path, str, str]) -> None:
    root, older, _ = copied
    (root / "shop" / older / "refused.json").write_bytes(b"\xff")
    states = {info.id: (info.state, info.reason) for info in release_store.list_releases(root, "shop")}
    assert states[older] == ("refused", "bad-refusal")
    release_store.promote(root, "shop", older)
    assert release_store.current_id(root, "shop") == older


def test_damaged_releases_do_not_push_whole_ones_out(copied: tuple[Path, str, str]) -> None:
    root, older, newer = copied
    for number in range(2 * release_store.KEPT_RELEASES):
        (root / "shop" / f"29990101T00000{number % 10}-{number:06x}").mkdir()
    release_store.promote(root, "shop", newer)
    (root / "shop" / "current.json").write_bytes(json.dumps({"release": newer}).encode())
    release_store.retire(root, "shop")
    assert (root / "shop" / older).is_dir()


@pytest.mark.parametrize(("recommender", "cases"), [(ITEM_KNN, 440), ("blend", 60)])
def test_no_other_error_escapes_whatever_happens_to_the_bytes(tmp_path: Path, recommender: str, cases: int) -> None:
    """Bytes of every file are flipped, cut, swapped and doubled; of arrays and items also with a hash that vouches."""
    rng, root = np.random.default_rng(16), tmp_path / "releases"
    folder = root / "shop" / write_random_release(root, 30, recommender, rng)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    reasons = Counter[str]()
    for case in range(cases):
        name = list(files)[case % len(files)]
        raw = damaged_bytes(files[name], rng)
        (folder / name).write_bytes(raw)
        if case % 2 and name != "manifest.json" and not name.endswith(".onnx"):
            vouch(folder, name)
        try:
            release_store.load(folder).scores([History()])
        except ReleaseError as error:
            reasons[error.reason] += 1
        release_store.list_releases(root, "shop")
        for file in {name, "manifest.json"}:
            (folder / file).write_bytes(files[file])
    assert reasons.total() > cases // 2
    assert len(reasons) > 4
    assert release_store.load(folder).scores([History()]).shape == (1, 30)


@pytest.mark.parametrize("shape", ["(100000000000,)", "(1, 100000000000)", "(200, 4000000000000)", "(0, 10)"])
def test_a_header_allocates_no_more_than_the_file_has(copied: tuple[Path, str, str], shape: str) -> None:
    folder = copied[0] / "shop" / copied[2]
    content("popularity.npy", header(shape, body=bytes(800)))(folder)
    tracemalloc.start()
    with pytest.raises(ReleaseError, match="has 800 bytes for an array of shape"):
        release_store.load(folder)
    allocated = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert allocated < 2**20


def damaged_bytes(raw: bytes, rng: np.random.Generator) -> bytes:
    """One of six damages, most of them in the first bytes, where headers are."""
    place = int(rng.integers(0, len(raw) if rng.random() < 0.5 else min(len(raw), 160)))
    other = int(rng.integers(0, len(raw)))
    changed = bytearray(raw)
    match int(rng.integers(0, 6)):
        case 0:
            changed[place] ^= 1 << int(rng.integers(0, 8))
        case 1:
            changed[place] = int(rng.integers(0, 256))
        case 2:
            return raw[:place]
        case 3:
            changed[place], changed[other] = changed[other], changed[place]
        case 4:
            changed[place:place] = raw[place : place + 40]
        case _:
            changed[place : place + 12] = rng.bytes(12)
    return bytes(changed)


def test_a_rollout_names_no_release_outside_the_folder(copied: tuple[Path, str, str]) -> None:
    root = copied[0]
    arms.write(root, "shop", arms.Rollout(canary=arms.Arm("../x", 0.5, 0, "aa")))
    with pytest.raises(ReleaseError, match="delete it to end every trial"):
        arms.read(root, "shop")


def test_names_of_releases_lead_nowhere(copied: tuple[Path, str, str]) -> None:
    root = copied[0]
    for name in ("../shop", "..", "/etc", "a/b", "", "a\0b"):
        with pytest.raises(ReleaseError, match="no name of letters"):
            release_store.promote(root, "shop", name)
    assert File("0", 0).bytes == 0
