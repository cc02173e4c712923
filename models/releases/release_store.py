"""The folder of releases: save, load, list, promote, roll back, refuse and retire.

<root>/<domain>/<release id>/manifest.json     and the files it names
<root>/<domain>/<release id>/refused.json      why a release was refused
<root>/<domain>/current.json                   the serving release and the ones that served before it
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from models.errors import ReleaseError
from models.releases import arms
from models.releases.manifest import (
    ITEM_KNN,
    TRAINING_FILE_PREFIX,
    Card,
    File,
    Manifest,
    ReleaseInfo,
    encode_manifest,
    read_manifest,
)
from models.releases.release import Release
from models.releases.release_checks import check_arrays, checked_recommender
from models.releases.release_files import (
    array_of,
    check_plain,
    checked_name,
    decode_json,
    read_json,
    read_plain,
    session_of,
    with_cure,
)
from stream.events import Id
from stream.files import creating_folder, free_space, write_atomically

POINTER: Final = "current.json"
ITEMS: Final = "items.json"
REFUSED: Final = "refused.json"
MAX_DETAIL: Final = 2_000
KEPT_RELEASES: Final = 5
"""The newest releases that are never deleted; also the length of the history that rollback can use."""


class Pointer(msgspec.Struct, frozen=True):
    """current.json: the serving release, and those that served before it, newest last."""

    release: str
    before: list[str] = []


class Refusal(msgspec.Struct, frozen=True):
    """refused.json: the reason as in `ReleaseError`."""

    reason: str
    detail: str


def prefix_of(recommender: str) -> str:
    """The prefix of a recommender's file names in a release.

    Item-kNN's own files are those that every release has for neighbors; the members of a blend add their own prefixes.
    """
    return "" if recommender in {ITEM_KNN, "blend"} else f"{recommender}."


def save(root: Path, manifest: Manifest, item_ids: Sequence[str], write: Callable[[Path], list[str]]) -> Manifest:
    """Write a release in one step: `write` puts its files into a folder and returns their names; then one rename.

    Returns:
        The manifest with the files' hashes and sizes.

    Raises:
        ReleaseError: not-written, as on a full disk; nothing of the release is left then.
    """
    folder = root / manifest.domain / manifest.id
    try:
        with creating_folder(folder) as aside:
            return _write_files(aside, manifest, item_ids, write)
    except OSError as error:
        raise ReleaseError("not-written", f"{folder} cannot be written: {error}; {free_space(root)}") from error


def _write_files(
    aside: Path, manifest: Manifest, item_ids: Sequence[str], write: Callable[[Path], list[str]]
) -> Manifest:
    names = write(aside)
    (aside / ITEMS).write_bytes(msgspec.json.encode(list(item_ids)))
    described = {name: _described(aside / name) for name in [*names, ITEMS]}
    files = {name: file for name, file in described.items() if not name.startswith(TRAINING_FILE_PREFIX)}
    extras = {name: file for name, file in described.items() if name.startswith(TRAINING_FILE_PREFIX)}
    complete = msgspec.structs.replace(manifest, files=files, extras=extras, items=len(item_ids))
    (aside / "manifest.json").write_bytes(encode_manifest(complete))
    return complete


def update_manifest(root: Path, manifest: Manifest) -> None:
    """Replace the manifest of a saved release, as when the gate has run; its files stay as they are."""
    write_atomically(root / manifest.domain / manifest.id / "manifest.json", encode_manifest(manifest))


def load(folder: Path, threads: int = 1) -> Release:
    """Load a release and check every file.

    Raises:
        ReleaseError: reason no-manifest, bad-manifest, format, bad-name, missing-file, not-a-file,
            hash-mismatch, unreadable, bad-array, shape-mismatch, not-finite or duplicate-items.
    """
    try:
        return _loaded(folder, threads)
    except ReleaseError:
        raise
    except Exception as error:  # a process must survive whatever a folder contains
        raise ReleaseError("unreadable", f"{folder}: {type(error).__name__}: {error}") from error


def _loaded(folder: Path, threads: int) -> Release:
    manifest = read_manifest(folder)
    items_path = folder / ITEMS
    if ITEMS not in manifest.files:
        raise ReleaseError("missing-file", f"{folder}: the manifest names no {ITEMS}")
    _check_names(folder, manifest)
    raw_items = _verified(items_path, manifest.files[ITEMS])
    item_ids = decode_json(raw_items, list[Id], "unreadable", items_path, "train again or roll back")
    del raw_items
    arrays = {Path(name).stem: _content(folder / name, file, threads) for name, file in _arrays_of(manifest)}
    check_arrays(folder, len(item_ids), arrays)
    prefix = prefix_of(manifest.recommender)
    return Release(manifest, checked_recommender(folder, manifest, item_ids, arrays, prefix), arrays)


def _arrays_of(manifest: Manifest) -> list[tuple[str, File]]:
    return [(name, file) for name, file in manifest.files.items() if name != ITEMS]


def _content(path: Path, file: File, threads: int) -> Any:
    """An array, or an ONNX Runtime session."""
    raw = _verified(path, file)
    return array_of(raw, path) if path.suffix == ".npy" else session_of(raw, path, threads)


def _verified(path: Path, file: File) -> bytearray:
    raw = read_plain(path, file.bytes)
    if hashlib.sha256(raw).hexdigest() != file.sha256:
        raise ReleaseError("hash-mismatch", f"{path} is not the file that was released; train again or roll back")
    return raw


def _check_names(folder: Path, manifest: Manifest) -> None:
    """Check without reading them that the folder holds the files of the manifest. Others are never opened."""
    for name, file in manifest.files.items():
        check_plain(folder / name, file.bytes)


def read_extra(folder: Path, manifest: Manifest, name: str) -> bytes:
    """A file for the next training run; raises like `load`: missing-file, not-a-file or hash-mismatch."""
    described = manifest.extras.get(name)
    if described is None:
        raise ReleaseError("missing-file", f"{folder} has no {name}; the next run trains without it")
    return bytes(_verified(folder / name, described))


def item_ids(folder: Path) -> list[str]:
    """The items of a release, most popular first. Raises ReleaseError: missing-file, not-a-file or unreadable."""
    path = folder / ITEMS
    return decode_json(read_plain(path), list[Id], "unreadable", path, "train again or roll back")


def release_folder(root: Path, domain: str, release: str) -> Path:
    """The folder of a release. Raises ReleaseError: bad-name for an id that is none."""
    return root / checked_name(domain, "the domain") / checked_name(release, "the release")


def current_id(root: Path, domain: str) -> str | None:
    """The serving release of a domain, or None. Raises ReleaseError: bad-pointer."""
    pointer = _read_pointer(root, domain)
    return pointer.release if pointer else None


def serving_id(root: Path, domain: str) -> str | None:
    """The release that processes serve: the current one; the newest ready one where the pointer is damaged."""
    try:
        return current_id(root, domain)
    except ReleaseError:
        return next((info.id for info in list_releases(root, domain) if info.state == "ready"), None)


def promote(root: Path, domain: str, release: str) -> None:
    """Make a release the serving one. It is loaded and checked first; raises like `load`, and OSError on a full disk.

    Promoting a release that was refused, and that loads, clears the refusal. A damaged pointer is replaced.
    """
    folder = release_folder(root, domain, release)
    try:
        load(folder)
    except ReleaseError as error:
        refuse(root, domain, release, error)
        raise
    pointer = _whole_pointer(root, domain)
    before = [*pointer.before, pointer.release][-KEPT_RELEASES:] if pointer else []
    _write_pointer(root, domain, Pointer(release, [earlier for earlier in before if earlier != release]))
    (folder / REFUSED).unlink(missing_ok=True)
    retire(root, domain)


def rollback(root: Path, domain: str) -> str:
    """Make the previous serving release serve again; returns its id.

    Raises:
        ReleaseError: there is none (no-parent), or it is damaged.
    """
    pointer = _read_pointer(root, domain)
    if pointer is None or not pointer.before:
        raise ReleaseError("no-parent", f"{domain}: there is no earlier release to roll back to")
    target = pointer.before[-1]
    load(root / domain / target)
    _write_pointer(root, domain, Pointer(target, pointer.before[:-1]))
    return target


def refuse(root: Path, domain: str, release: str, error: ReleaseError) -> None:
    """Record in a release's folder why it was refused; nothing if the folder is gone or cannot be written."""
    folder = root / domain / release
    content = json.dumps({"reason": error.reason, "detail": error.detail[:MAX_DETAIL]}, ensure_ascii=False)
    with contextlib.suppress(OSError):
        if folder.is_dir() and not folder.is_symlink():
            write_atomically(folder / REFUSED, content.encode("utf-8", "replace"))


def retire(root: Path, domain: str) -> None:
    """Delete old releases except the newest, the serving one, those before it, and those in a canary or shadow.

    Nothing is deleted before a first release serves.
    """
    pointer = _whole_pointer(root, domain)
    if pointer is None:
        return
    needed = {pointer.release, *pointer.before, *arms.read_or_none(root, domain).releases}
    whole = [folder for folder in _folders(root, domain) if _is_release(folder)]
    for folder in whole[:-KEPT_RELEASES]:
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)


def list_releases(root: Path, domain: str) -> list[ReleaseInfo]:
    """Every release of a domain, newest first; a damaged one is refused. With a damaged pointer none is serving."""
    pointer, rollout = _whole_pointer(root, domain), arms.read_or_none(root, domain)
    serving = pointer.release if pointer is not None else None
    return [_info(folder, _live_state(folder.name, serving, rollout)) for folder in reversed(_folders(root, domain))]


def problems(root: Path, domain: str) -> list[ReleaseError]:
    """Damage of a domain's pointer and rollout files; empty where both are whole."""
    damages = []
    for read in (_read_pointer, arms.read):
        try:
            read(root, domain)
        except ReleaseError as error:
            damages.append(error)
    return damages


def card(root: Path, domain: str, release: str) -> Card | None:
    """The card of a domain's release; None where there is no such release. Raises like `read_manifest`."""
    listed = next((info for info in list_releases(root, domain) if info.id == release), None)
    if listed is None:
        return None
    manifest = read_manifest(release_folder(root, domain, release))
    return Card(**msgspec.structs.asdict(manifest), state=listed.state, reason=listed.reason, detail=listed.detail)


def _info(folder: Path, live_state: str | None) -> ReleaseInfo:
    try:
        manifest = read_manifest(folder)
        _check_names(folder, manifest)
    except (ReleaseError, OSError) as error:
        reason = error.reason if isinstance(error, ReleaseError) else "unreadable"
        return ReleaseInfo(folder.name, "refused", reason=reason, detail=str(error))
    # A release that serves, or is tried out, was let through after its refusal.
    refusal = _refusal(folder) if not live_state else None
    return ReleaseInfo(
        id=folder.name,
        state=live_state or ("refused" if refusal else "ready"),
        recommender=manifest.recommender,
        created_at=manifest.created_at,
        metrics=manifest.metrics,
        reason=refusal.reason if refusal else None,
        judged=manifest.gate is not None,
        detail=refusal.detail if refusal else None,
    )


def _refusal(folder: Path) -> Refusal | None:
    """Why a release was refused; a damaged `refused.json` still refuses."""
    try:
        return read_json(folder / REFUSED, Refusal, "bad-refusal", "promote the release, and it is deleted")
    except ReleaseError as error:
        return None if error.reason == "missing-file" else Refusal(error.reason, error.detail)


def _folders(root: Path, domain: str) -> list[Path]:
    """What looks like the releases of a domain, oldest first."""
    try:
        return sorted((root / domain).glob("[0-9]*"))
    except OSError:
        return []


def _is_release(folder: Path) -> bool:
    """Whether the manifest can be read. Damaged releases do not count as kept: they would push whole ones out."""
    try:
        read_manifest(folder)
    except ReleaseError:
        return False
    return True


def _live_state(release: str, serving: str | None, rollout: arms.Rollout) -> str | None:
    if release == serving:
        return "serving"
    for role, arm in (("canary", rollout.canary), ("shadow", rollout.shadow)):
        if arm is not None and arm.release == release:
            return role
    return None


def _described(path: Path) -> File:
    raw = path.read_bytes()
    return File(hashlib.sha256(raw).hexdigest(), len(raw))


def _read_pointer(root: Path, domain: str) -> Pointer | None:
    cure = f"promote a release: coldstream releases promote RELEASE --domain {domain}"
    try:
        pointer = read_json(root / domain / POINTER, Pointer, "bad-pointer", cure)
        for release in (pointer.release, *pointer.before):
            checked_name(release, f"{root / domain / POINTER}")
    except ReleaseError as error:
        if error.reason == "missing-file":
            return None
        raise ReleaseError("bad-pointer", with_cure(error.detail, cure)) from error
    return pointer


def _whole_pointer(root: Path, domain: str) -> Pointer | None:
    """The pointer; None where there is none, or it is damaged: `problems` says that."""
    try:
        return _read_pointer(root, domain)
    except ReleaseError:
        return None


def _write_pointer(root: Path, domain: str, pointer: Pointer) -> None:
    write_atomically(root / domain / POINTER, msgspec.json.encode(pointer))
