"""Releases: what a training run hands to serving. Written aside, hashed, checked on loading, promoted atomically.

<root>/<domain>/<release id>/manifest.json and its files
<root>/<domain>/current.json      the serving release and those before it
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from features.activity import Recent
from models.arrays import Float32, Int64
from models.data.interactions import Batch, batch_of
from models.data.profiles import Asking
from models.errors import ReleaseError
from models.recommenders.base import KIND_WEIGHTS, Recommender, Vocabulary, weights_of
from models.recommenders.blend import members
from models.recommenders.freshness import FIRST_SEEN
from models.recommenders.item_product import options_of
from models.recommenders.onnx_scorer import served, valued
from models.releases import arms
from models.releases.gate import Verdict

FORMAT: Final = 2
KEPT: Final = 5
COUNTS: Final = "item-knn"
HISTORY: Final = 50
"""Events of a history that a release looks at; a recommender may look at fewer."""
TRAINING: Final = "training."
"""Files whose names begin so are for the next training run: no serving process reads them."""


class File(msgspec.Struct, frozen=True):
    """One file of a release."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True):
    """What a release says of itself: its card. Times are epoch ms.

    `metrics` are of the held-out window as `protocol` says, `intervals` their 95% bounds over users. `cutoff_at` is the
    time of its newest event; its networks, and what `metrics` judge, learned from what came before `held_out_from` (0:
    not known). `data` is a hash of the events, the catalogue and the profiles, `seconds` what the run took,
    `warm_start` the release whose weights its networks began with, `gate` the verdict on it, `extras` files for the
    next run.
    """

    id: str
    domain: str
    recommender: str
    created_at: int
    cutoff_at: int
    items: int
    events: int
    users: int
    files: dict[str, File]
    params: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    protocol: str = ""
    parent: str | None = None
    format: int = FORMAT
    intervals: dict[str, tuple[float, float]] = {}
    held_out_from: int = 0
    data: str = ""
    seconds: float = 0.0
    warm_start: str | None = None
    gate: Verdict | None = None
    extras: dict[str, File] = {}


class Card(Manifest, frozen=True):
    """A manifest, and how its release stands: `state`, `reason` and `detail` as in a listing."""

    state: str = ""
    reason: str | None = None
    detail: str | None = None


class Pointer(msgspec.Struct, frozen=True):
    """current.json: the serving release, and those that served before it, newest last."""

    release: str
    before: list[str] = []


class ReleaseInfo(msgspec.Struct, frozen=True):
    """One line of a listing: `state` is serving, canary, shadow, ready or refused, with the reason: what a load failed
    at, or the names of the gate's checks, with commas. `judged`: the gate has looked at it."""

    id: str
    state: str
    recommender: str = ""
    created_at: int = 0
    metrics: dict[str, float] = {}
    reason: str | None = None
    judged: bool = False
    detail: str | None = None


class Release:
    """A loaded release: scores for histories, neighbours of items. Needs neither Keras nor TensorFlow.

    `reads_profiles`: whether users' profiles change what it says.
    """

    def __init__(self, manifest: Manifest, recommender: Recommender, arrays: dict[str, Any]) -> None:
        self.manifest = manifest
        self.recommender = recommender
        self.vocabulary = recommender.vocabulary
        self.popularity: Float32 = arrays["popularity"]
        self.first_seen: Int64 | None = arrays.get(FIRST_SEEN)
        self._valued = valued(recommender)
        self._neighbours, self._similarities = arrays["neighbours"], arrays["similarities"]
        self.reads_profiles = any(len(getattr(one, "fields", ())) > 0 for one in members(recommender))

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def domain(self) -> str:
        return self.manifest.domain

    @property
    def item_ids(self) -> list[str]:
        return self.vocabulary.item_ids

    @property
    def index(self) -> dict[str, int]:
        return self.vocabulary.index

    @property
    def neighbours(self) -> tuple[Any, Float32]:
        """int32 [items, neighbours], -1 where there are fewer, and how near they are, float32 alike, nearest first."""
        return self._neighbours, self._similarities

    def knows(self, history: Recent) -> bool:
        """Whether anything in a history can be used: an item of the vocabulary with a kind that speaks for it."""
        pairs = zip(history.items, history.kinds, strict=True)
        weights = self.vocabulary.weights
        return any(weights[kind] > 0 and item in self.index for item, kind in pairs)

    def scores(self, batch: Sequence[Recent], asking: Sequence[Asking] = ()) -> Float32:
        """float32 [batch, items]; a history of nothing known gets popularity's order.

        `asking` says who asks and when for each history; nothing where that is not known.
        """
        return self.recommender.score(batch_of(batch, self.vocabulary, HISTORY, asking))

    def probabilities(self, batch: Sequence[Recent], asking: Sequence[Asking] = ()) -> Float32:
        """float32 [batch, items]: `scores` as shares, so that they can be weighed against others."""
        return self.recommender.probabilities(batch_of(batch, self.vocabulary, HISTORY, asking))

    def expected(self, history: Recent, asking: Asking, items: Sequence[str]) -> dict[str, float]:
        """What the next event with each of these items would be worth, in the unit of the kind that most values are of.

        Empty where the release learned no values; an item that it does not know is left out.
        """
        if self._valued is None:
            return {}
        vocabulary = self._valued.vocabulary
        values = self._valued.values(batch_of([history], vocabulary, HISTORY, [asking]))[0]
        known = {item: vocabulary.index[item] for item in items if item in vocabulary.index}
        return {item: round(float(values[place]), 4) for item, place in known.items()}

    def similar(self, item_id: str, n: int) -> list[tuple[str, float]]:
        """The nearest items, nearest first; empty for an unknown item."""
        place = self.index.get(item_id)
        if place is None:
            return []
        pairs = zip(self._neighbours[place][:n], self._similarities[place][:n], strict=True)
        return [(self.item_ids[other], float(near)) for other, near in pairs if other >= 0]


def prefix_of(recommender: str) -> str:
    """What the names of a recommender's files in a release begin with.

    Item-kNN's own files are those that every release has for neighbours; a blend's members bring their own names.
    """
    return "" if recommender in {COUNTS, "blend"} else f"{recommender}."


def new_id(now_ms: int | None = None) -> str:
    """A name that sorts by time: 20260131T120000-4fa1c2, where the first three hex digits are the milliseconds."""
    moment = now_ms if now_ms is not None else int(time.time() * 1000)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(moment // 1000))
    return f"{stamp}-{moment % 1000:03x}{secrets.randbelow(4_096):03x}"


def save(root: Path, manifest: Manifest, item_ids: Sequence[str], write: Callable[[Path], list[str]]) -> Manifest:
    """Write a release: `write` puts its files into a folder and names them. All aside, then one rename."""
    home = root / manifest.domain
    home.mkdir(parents=True, exist_ok=True)
    aside = home / f".{manifest.id}.aside"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    names = write(aside)
    (aside / "items.json").write_bytes(msgspec.json.encode(list(item_ids)))
    described = {name: _described(aside / name) for name in [*names, "items.json"]}
    files = {name: one for name, one in described.items() if not name.startswith(TRAINING)}
    extras = {name: one for name, one in described.items() if name.startswith(TRAINING)}
    whole = msgspec.structs.replace(manifest, files=files, extras=extras, items=len(item_ids))
    (aside / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(whole)))
    for path in aside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    aside.rename(home / manifest.id)
    return whole


def load(folder: Path, threads: int = 1) -> Release:
    """A release, every file checked.

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
        arrays = {Path(name).stem: _loaded(folder / name, threads) for name in manifest.files if name != "items.json"}
    except (OSError, ValueError, msgspec.DecodeError, RuntimeError) as error:
        raise ReleaseError("unreadable", f"{folder}: {error}") from error
    _check_shapes(folder, len(item_ids), arrays)
    return Release(manifest, _recommender(folder, manifest, item_ids, arrays), arrays)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a release; raises like `load`."""
    try:
        raw = (folder / "manifest.json").read_bytes()
    except OSError as error:
        raise ReleaseError("no-manifest", f"{folder} holds no release: {error}") from error
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.DecodeError as error:
        raise ReleaseError("bad-manifest", f"{folder / 'manifest.json'}: {error}") from error
    if manifest.format != FORMAT:
        raise ReleaseError("format", f"{folder}: format {manifest.format}; this version reads format {FORMAT}")
    return manifest


def annotate(root: Path, manifest: Manifest) -> None:
    """Write a release's manifest anew, as the gate or the run's end completed it; its files stay as they are."""
    _put(root / manifest.domain / manifest.id / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest)))


def read_extra(folder: Path, manifest: Manifest, name: str) -> bytes:
    """A file for the next training run; raises like `load`: missing-file or hash-mismatch."""
    described = manifest.extras.get(name)
    if described is None or not (folder / name).is_file():
        raise ReleaseError("missing-file", f"{folder} has no {name}; the next run does without")
    raw = (folder / name).read_bytes()
    if hashlib.sha256(raw).hexdigest() != described.sha256:
        raise ReleaseError("hash-mismatch", f"{folder / name} is not the file that was released; it is not used")
    return raw


def current_id(root: Path, domain: str) -> str | None:
    """The serving release of a domain, or None."""
    pointer = _pointer(root, domain)
    return pointer.release if pointer else None


def promote(root: Path, domain: str, release: str) -> None:
    """Make a release the serving one. It is loaded and checked first; raises like `load`.

    A release that was refused before and is whole is no longer refused: who promotes it has seen the reason.
    """
    folder = root / domain / release
    try:
        load(folder)
    except ReleaseError as error:
        refuse(root, domain, release, error)
        raise
    pointer = _pointer(root, domain)
    before = [*pointer.before, pointer.release][-KEPT:] if pointer else []
    _point(root, domain, Pointer(release, [one for one in before if one != release]))
    (folder / "refused.json").unlink(missing_ok=True)
    _retire(root, domain)


def rollback(root: Path, domain: str) -> str:
    """Make the release before the serving one serve again; its id.

    Raises:
        ReleaseError: there is none, or it is damaged.
    """
    pointer = _pointer(root, domain)
    if pointer is None or not pointer.before:
        raise ReleaseError("no-parent", f"{domain}: there is no earlier release to go back to")
    target = pointer.before[-1]
    load(root / domain / target)
    _point(root, domain, Pointer(target, pointer.before[:-1]))
    return target


def refuse(root: Path, domain: str, release: str, error: ReleaseError) -> None:
    """Leave the reason beside a refused release, where there is a folder for it."""
    folder = root / domain / release
    if folder.is_dir():
        _put(folder / "refused.json", json.dumps({"reason": error.reason, "detail": error.detail}).encode())


def retire(root: Path, domain: str) -> None:
    """Delete old releases but the newest, the serving one and those before it: refused ones would fill the disk."""
    if _pointer(root, domain) is not None:
        _retire(root, domain)


def list_releases(root: Path, domain: str) -> list[ReleaseInfo]:
    """Every release of a domain, newest first."""
    serving, tried = current_id(root, domain), _tried(root, domain)
    found = []
    for folder in sorted((root / domain).glob("[0-9]*"), reverse=True):
        refused = folder / "refused.json"
        try:
            manifest = read_manifest(folder)
        except ReleaseError as error:
            found.append(ReleaseInfo(folder.name, "refused", reason=error.reason, detail=error.detail))
            continue
        said = json.loads(refused.read_text("utf-8")) if refused.exists() else {}
        state = _state(folder.name, serving, tried) or ("refused" if said else "ready")
        if state in {"serving", "canary", "shadow"}:  # who let it answer has seen what was said before
            said = {}
        about = (manifest.recommender, manifest.created_at, manifest.metrics, said.get("reason"))
        found.append(ReleaseInfo(folder.name, state, *about, manifest.gate is not None, said.get("detail")))
    return found


def card(root: Path, domain: str, release: str) -> Card | None:
    """The card of a domain's release; None where there is no such release. Raises like `read_manifest`."""
    listed = next((one for one in list_releases(root, domain) if one.id == release), None)
    if listed is None:
        return None
    manifest = read_manifest(root / domain / release)
    return Card(**msgspec.structs.asdict(manifest), state=listed.state, reason=listed.reason, detail=listed.detail)


def _tried(root: Path, domain: str) -> arms.Rollout:
    """What is tried out; nothing where the file is damaged: who follows it says so."""
    try:
        return arms.read(root, domain)
    except ReleaseError:
        return arms.Rollout()


def _state(release: str, serving: str | None, tried: arms.Rollout) -> str | None:
    if release == serving:
        return "serving"
    for role, one in (("canary", tried.canary), ("shadow", tried.shadow)):
        if one is not None and one.release == release:
            return role
    return None


def _described(path: Path) -> File:
    raw = path.read_bytes()
    return File(hashlib.sha256(raw).hexdigest(), len(raw))


def _loaded(path: Path, threads: int) -> Any:
    return np.load(path, allow_pickle=False) if path.suffix == ".npy" else _session(path, threads)


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), options_of(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base below Exception
        raise RuntimeError(f"{path.name}: {error}") from error


def _check_shapes(folder: Path, items: int, arrays: dict[str, Any]) -> None:
    for name in ("popularity", "neighbours", "similarities"):
        if name not in arrays:
            raise ReleaseError("missing-file", f"{folder}: the manifest names no {name}.npy")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            continue
        if not name.endswith("repeats") and array.shape[0] != items:
            raise ReleaseError("shape-mismatch", f"{folder}: {name} has {array.shape[0]} rows for {items} items")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ReleaseError("not-finite", f"{folder}: {name} holds a value that is not finite")
        beside = arrays.get(name.replace("neighbours", "similarities"))
        if name.endswith("neighbours") and (
            beside is None or beside.shape != array.shape or array.min(initial=0) < -1 or array.max(initial=-1) >= items
        ):
            raise ReleaseError("shape-mismatch", f"{folder}: {name} and its similarities do not fit {items} items")


def _recommender(folder: Path, manifest: Manifest, item_ids: list[str], arrays: dict[str, Any]) -> Recommender:
    """The recommender, asked once for two histories: one of nothing, one of one item."""
    params = {**manifest.params, "recommender": manifest.recommender}
    try:
        known = Vocabulary.of(item_ids, weights_of(manifest.params.get("kinds", KIND_WEIGHTS)))
        made = served(params, known, arrays, prefix_of(manifest.recommender))
    except KeyError as error:
        raise ReleaseError("missing-file", f"{folder}: {manifest.recommender} needs {error.args[0]!r}") from error
    except (TypeError, ValueError) as error:
        raise ReleaseError("shape-mismatch", f"{folder}: {error}") from error
    one = np.zeros((2, HISTORY), np.int32)
    one[1, -1] = 1
    try:
        scores = made.score(Batch(one, one, one))
    except Exception as error:  # onnxruntime's own exceptions share no base below Exception
        raise ReleaseError("shape-mismatch", f"{folder}: {manifest.recommender} cannot score: {error}") from error
    if scores.shape != (2, len(item_ids)) or not np.isfinite(scores).all():
        raise ReleaseError("shape-mismatch", f"{folder}: {manifest.recommender} scores {scores.shape}, or not finitely")
    return made


def _pointer(root: Path, domain: str) -> Pointer | None:
    path = root / domain / "current.json"
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Pointer)
    except msgspec.DecodeError as error:
        raise ReleaseError("bad-pointer", f"{path}: {error}; delete it and promote a release") from error


def _point(root: Path, domain: str, pointer: Pointer) -> None:
    _put(root / domain / "current.json", msgspec.json.encode(pointer))


def _put(path: Path, raw: bytes) -> None:
    aside = path.with_suffix(".aside")
    with aside.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _retire(root: Path, domain: str) -> None:
    pointer = _pointer(root, domain)
    assert pointer is not None
    needed = {pointer.release, *pointer.before, *_tried(root, domain).releases}
    for folder in sorted((root / domain).glob("[0-9]*"))[:-KEPT]:
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)
