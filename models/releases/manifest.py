"""What a release folder says of itself: `manifest.json` with a SHA-256 for each file, and how the release stands."""

import secrets
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from features.activity import FoldSettings
from models.errors import ReleaseError
from models.releases.gate import GateReport
from models.releases.release_files import checked_name, read_json

FORMAT: Final = 3
"""Raised whenever a newer version could misread an older release folder."""
ITEM_KNN: Final = "item-knn"
"""The recommender of a domain's first release, and the source of every release's neighbors."""
OWN_FILES: Final = frozenset({"manifest.json", "refused.json"})
"""Files of a release folder that the manifest does not name."""
TRAINING_FILE_PREFIX: Final = "training."
"""Files with this prefix are for the next training run. Serving processes never read them."""
EpochMs = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
"""A time that a calendar knows: 1970 to 9999."""
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
DEFAULT_HISTORY_LENGTH: Final = FoldSettings().history_length
"""Events of a history that a release reads, where a training run sets nothing else."""


class File(msgspec.Struct, frozen=True):
    """One file of a release."""

    sha256: str
    bytes: Count


class Manifest(msgspec.Struct, frozen=True):
    """The card of a release. Times are epoch ms.

    Attributes:
        cutoff_at: the time of the newest training event.
        files: what serving loads; `extras` are files for the next training run.
        metrics: results on the held-out window that `protocol` describes; `intervals` are 95% bounds over users.
        parent: the release that served when this one was trained.
        history_length: the number of newest events of a history that it was trained on and reads when it scores.
        held_out_from: start of the held-out window; 0 if unknown. The networks, and the fit that `metrics` measure,
            learned only from events before it.
        data: a hash of the events, the catalogue and the profiles.
        seconds: duration of the training run.
        warm_start: the release whose weights the networks started from.
        gate: the gate's report; None before the gate has run.
    """

    id: str
    domain: str
    recommender: str
    created_at: EpochMs
    cutoff_at: EpochMs
    items: Count
    events: Count
    users: Count
    files: dict[str, File]
    params: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    protocol: str = ""
    parent: str | None = None
    format: int = FORMAT
    history_length: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = DEFAULT_HISTORY_LENGTH
    intervals: dict[str, tuple[float, float]] = {}
    held_out_from: EpochMs = 0
    data: str = ""
    seconds: float = 0.0
    warm_start: str | None = None
    gate: GateReport | None = None
    extras: dict[str, File] = {}


class Card(Manifest, frozen=True):
    """A manifest plus the state of its release: `state`, `reason` and `detail` as in `ReleaseInfo`."""

    state: str = ""
    reason: str | None = None
    detail: str | None = None


class ReleaseInfo(msgspec.Struct, frozen=True):
    """One row of a listing.

    `state` is serving, canary, shadow, ready or refused. `reason` is why it was refused: the error of a failed load, or
    the names of the failed gate checks, comma-separated. `judged`: the gate has run on it.
    """

    id: str
    state: str
    recommender: str = ""
    created_at: int = 0
    metrics: dict[str, float] = {}
    reason: str | None = None
    judged: bool = False
    detail: str | None = None


class _FormatOnly(msgspec.Struct, frozen=True):
    """What is read first: other fields may differ between formats."""

    format: int


def new_id(now_ms: int | None = None) -> str:
    """A release id that sorts by time: 20260131T120000-4fa1c2; the first three hex digits are the milliseconds."""
    created_at = now_ms if now_ms is not None else int(time.time() * 1000)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(created_at // 1000))
    return f"{stamp}-{created_at % 1000:03x}{secrets.randbelow(4_096):03x}"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a release folder.

    Raises:
        ReleaseError: reason no-manifest, bad-manifest, not-a-file for a link, or format for a release that another
            version wrote.
    """
    path = folder / "manifest.json"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ReleaseError("not-a-file", f"{folder} is not a folder; train again or roll back")
    try:
        written = read_json(path, _FormatOnly, "bad-manifest").format
    except ReleaseError as error:
        reason = "no-manifest" if error.reason == "missing-file" else error.reason
        raise ReleaseError(reason, f"{folder} holds no release: {error.detail}") from error
    if written != FORMAT:
        raise ReleaseError(
            "format",
            f"{folder}: release format {written} cannot be read by this version (format {FORMAT}); train a new one",
        )
    manifest = read_json(path, Manifest, "bad-manifest")
    problem = _problem(manifest, folder)
    if problem:
        raise ReleaseError("bad-manifest", f"{path} {problem}; train again or roll back")
    return manifest


def _problem(manifest: Manifest, folder: Path) -> str | None:
    """What the types alone do not refuse."""
    if (manifest.domain, manifest.id) != (folder.parent.name, folder.name):
        return f"is that of release {manifest.id[:80]!r} of domain {manifest.domain[:80]!r}"
    for name in (*manifest.files, *manifest.extras):
        checked_name(name, f"{folder}/manifest.json")
    repeated = sorted(set(manifest.files) & set(manifest.extras) | {*manifest.files, *manifest.extras} & OWN_FILES)
    if repeated:
        return f"names {repeated[0]!r} twice"
    try:
        msgspec.json.encode(manifest)
    except (OverflowError, RecursionError) as error:  # a number of more than 64 bits among the parameters
        return f"has a parameter that is no JSON: {error}"
    return None


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`, indented."""
    return msgspec.json.format(msgspec.json.encode(manifest))
