"""The folder of releases: save, load, list, promote, roll back, refuse and retire.

<root>/<domain>/<release id>/manifest.json     and the files it names
<root>/<domain>/<release id>/refused.json      why a release was refused
<root>/<domain>/current.json                   the serving release and the ones that served before it
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from models.data.batch import Batch
from models.data.vocabulary import PREFERENCE_WEIGHTS, Vocabulary, kind_weights_of
from models.errors import ReleaseError
from models.recommenders import registry
from models.recommenders.base import Scorer
from models.recommenders.item_product import options_of
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
from stream.files import creating_folder, write_atomically

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
    """
    with creating_folder(root / manifest.domain / manifest.id) as folder:
        names = write(folder)
        (folder / "items.json").write_bytes(msgspec.json.encode(list(item_ids)))
        described = {name: _described(folder / name) for name in [*names, "items.json"]}
        files = {name: file for name, file in described.items() if not name.startswith(TRAINING_FILE_PREFIX)}
        extras = {name: file for name, file in described.items() if name.startswith(TRAINING_FILE_PREFIX)}
        complete = msgspec.structs.replace(manifest, files=files, extras=extras, items=len(item_ids))
        (folder / "manifest.json").write_bytes(encode_manifest(complete))
    return complete


def update_manifest(root: Path, manifest: Manifest) -> None:
    """Replace the manifest of a saved release, as when the gate has run; its files stay as they are."""
    write_atomically(root / manifest.domain / manifest.id / "manifest.json", encode_manifest(manifest))


def load(folder: Path, threads: int = 1) -> Release:
    """Load a release and check every file.

    Raises:
        ReleaseError: reason no-manifest, bad-manifest, format, missing-file, hash-mismatch, unreadable, shape-mismatch
            or not-finite.
    """
    manifest = read_manifest(folder)
    for name, described in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ReleaseError("missing-file", f"{path} is missing; the release is not whole: train again or roll back")
        if hashlib.sha256(path.read_bytes()).hexdigest() != described.sha256:
            raise ReleaseError("hash-mismatch", f"{path} is not the file that was released; train again or roll back")
    try:
        item_ids = msgspec.json.decode((folder / "items.json").read_bytes(), type=list[str])
        arrays = {
            Path(name).stem: _read_file(folder / name, threads) for name in manifest.files if name != "items.json"
        }
    except (OSError, ValueError, msgspec.DecodeError, RuntimeError) as error:
        raise ReleaseError("unreadable", f"{folder}: {error}") from error
    _check_shapes(folder, len(item_ids), arrays)
    return Release(manifest, _checked_recommender(folder, manifest, item_ids, arrays), arrays)


def read_extra(folder: Path, manifest: Manifest, name: str) -> bytes:
    """A file for the next training run; raises like `load`: missing-file or hash-mismatch."""
    described = manifest.extras.get(name)
    if described is None or not (folder / name).is_file():
        raise ReleaseError("missing-file", f"{folder} has no {name}; the next run trains without it")
    raw = (folder / name).read_bytes()
    if hashlib.sha256(raw).hexdigest() != described.sha256:
        raise ReleaseError("hash-mismatch", f"{folder / name} is not the file that was released; it is not used")
    return raw


def current_id(root: Path, domain: str) -> str | None:
    """The serving release of a domain, or None."""
    pointer = _read_pointer(root, domain)
    return pointer.release if pointer else None


def promote(root: Path, domain: str, release: str) -> None:
    """Make a release the serving one. It is loaded and checked first; raises like `load`.

    Promoting a release that was refused, and that loads, clears the refusal.
    """
    folder = root / domain / release
    try:
        load(folder)
    except ReleaseError as error:
        refuse(root, domain, release, error)
        raise
    pointer = _read_pointer(root, domain)
    before = [*pointer.before, pointer.release][-KEPT_RELEASES:] if pointer else []
    _write_pointer(root, domain, Pointer(release, [earlier for earlier in before if earlier != release]))
    (folder / "refused.json").unlink(missing_ok=True)
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
    """Record in a release's folder why it was refused; nothing if the folder is gone."""
    folder = root / domain / release
    if folder.is_dir():
        write_atomically(folder / "refused.json", json.dumps({"reason": error.reason, "detail": error.detail}).encode())


def retire(root: Path, domain: str) -> None:
    """Delete old releases except the newest, the serving one, those before it, and those in a canary or shadow.

    Nothing is deleted before a first release serves.
    """
    pointer = _read_pointer(root, domain)
    if pointer is None:
        return
    needed = {pointer.release, *pointer.before, *_rollout(root, domain).releases}
    for folder in sorted((root / domain).glob("[0-9]*"))[:-KEPT_RELEASES]:
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)


def list_releases(root: Path, domain: str) -> list[ReleaseInfo]:
    """Every release of a domain, newest first."""
    serving, rollout = current_id(root, domain), _rollout(root, domain)
    folders = sorted((root / domain).glob("[0-9]*"), reverse=True)
    return [_info(folder, _live_state(folder.name, serving, rollout)) for folder in folders]


def card(root: Path, domain: str, release: str) -> Card | None:
    """The card of a domain's release; None where there is no such release. Raises like `read_manifest`."""
    listed = next((info for info in list_releases(root, domain) if info.id == release), None)
    if listed is None:
        return None
    manifest = read_manifest(root / domain / release)
    return Card(**msgspec.structs.asdict(manifest), state=listed.state, reason=listed.reason, detail=listed.detail)


def _info(folder: Path, live_state: str | None) -> ReleaseInfo:
    try:
        manifest = read_manifest(folder)
    except ReleaseError as error:
        return ReleaseInfo(folder.name, "refused", reason=error.reason, detail=error.detail)
    refused = folder / "refused.json"
    # A release that serves, or is tried out, was let through after its refusal.
    refusal = msgspec.json.decode(refused.read_bytes(), type=Refusal) if not live_state and refused.exists() else None
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


def _rollout(root: Path, domain: str) -> arms.Rollout:
    """A domain's canary and shadow; none if the file is damaged: the process that follows it reports that."""
    try:
        return arms.read(root, domain)
    except ReleaseError:
        return arms.Rollout()


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


def _read_file(path: Path, threads: int) -> Any:
    return np.load(path, allow_pickle=False) if path.suffix == ".npy" else _session(path, threads)


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), options_of(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base below Exception
        raise RuntimeError(f"{path.name}: {error}") from error


def _check_shapes(folder: Path, items: int, arrays: dict[str, Any]) -> None:
    for name in ("popularity", "neighbors", "similarities"):
        if name not in arrays:
            raise ReleaseError("missing-file", f"{folder}: the manifest names no {name}.npy")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            continue
        if not name.endswith("repeats") and array.shape[0] != items:
            raise ReleaseError("shape-mismatch", f"{folder}: {name} has {array.shape[0]} rows for {items} items")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ReleaseError("not-finite", f"{folder}: {name} holds a value that is not finite")
        similarities = arrays.get(name.replace("neighbors", "similarities"))
        if name.endswith("neighbors") and (
            similarities is None
            or similarities.shape != array.shape
            or array.min(initial=0) < -1
            or array.max(initial=-1) >= items
        ):
            raise ReleaseError("shape-mismatch", f"{folder}: {name} and its similarities do not fit {items} items")


def _checked_recommender(folder: Path, manifest: Manifest, item_ids: list[str], arrays: dict[str, Any]) -> Scorer:
    """The recommender, after it has scored two histories: an empty one, and one of a single item."""
    params = {**manifest.params, "recommender": manifest.recommender}
    try:
        vocabulary = Vocabulary.from_items(item_ids, kind_weights_of(manifest.params.get("kinds", PREFERENCE_WEIGHTS)))
        recommender = registry.load(params, vocabulary, arrays, prefix_of(manifest.recommender))
    except KeyError as error:
        raise ReleaseError("missing-file", f"{folder}: {manifest.recommender} needs {error.args[0]!r}") from error
    except (TypeError, ValueError) as error:
        raise ReleaseError("shape-mismatch", f"{folder}: {error}") from error
    histories = np.zeros((2, manifest.history_length), np.int32)
    histories[1, -1] = 1
    try:
        scores = recommender.score(Batch(histories, histories, histories))
    except Exception as error:  # onnxruntime's own exceptions share no base below Exception
        raise ReleaseError("shape-mismatch", f"{folder}: {manifest.recommender} cannot score: {error}") from error
    if scores.shape != (2, len(item_ids)) or not np.isfinite(scores).all():
        raise ReleaseError("shape-mismatch", f"{folder}: {manifest.recommender} scores {scores.shape}, or not finitely")
    return recommender


def _read_pointer(root: Path, domain: str) -> Pointer | None:
    path = root / domain / "current.json"
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pointer)
    except msgspec.DecodeError as error:
        raise ReleaseError("bad-pointer", f"{path}: {error}; delete it and promote a release") from error


def _write_pointer(root: Path, domain: str, pointer: Pointer) -> None:
    write_atomically(root / domain / "current.json", msgspec.json.encode(pointer))
