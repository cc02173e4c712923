"""Warm start: a network begins with the weights of an earlier one, items matched by their ids.

Weights are numpy arrays in an `.npz`: nothing in it is code, and it is read with allow_pickle=False.
"""

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from models.arrays import AnyArray, Float32, Int32, Int64
from models.data.vocabulary import Vocabulary
from models.errors import TrainingError

if TYPE_CHECKING:
    from models.recommenders.neural.recommender import Network, Neural

ENDING: Final = ".npz"
FACTS: Final = ("encoder", "length", "until", "item_ids")


class Start(msgspec.Struct, frozen=True):
    """Weights to begin with; they learned from what came before `until` (epoch ms), so nothing before it judges them.

    `items` float32 [items + 1, embedding_size] (row 0: padding) of `item_ids`; `codes` int32 [items] the rows of their
    categories in `categories` float32 [categories + 1, embedding_size] (empty without categories); `rest` the other
    weights in the network's order; `release` the one that they are from; `profile` float32 [attributes, embedding_size]
    the vectors of what `attributes` name (`Fields.rows`).
    """

    encoder: str
    length: int
    until: int
    item_ids: list[str]
    items: Float32
    codes: Int32
    categories: Float32
    rest: list[AnyArray]
    release: str = ""
    attributes: list[str] = []
    profile: Float32 = np.zeros((0, 0), np.float32)


def start_of(neural: "Neural", until: int) -> Start:
    """What a fitted network can hand on; it learned only from what came before `until`."""
    network = neural.network
    if network is None:
        raise TrainingError(f"{neural.name} is not fitted; there are no weights to keep")
    items, categories, profile, rest = _parted(network)
    own = np.array(items)
    by_category = np.array(categories) if categories is not None else np.zeros((0, own.shape[1]), np.float32)
    codes = network.category_of[1:].astype(np.int32)
    others = [np.array(weights) for weights in rest]
    start = Start(
        neural.name, network.params.length, until, neural.vocabulary.item_ids, own, codes, by_category, others
    )
    if profile is None:
        return start
    return msgspec.structs.replace(start, attributes=network.fields.labels, profile=np.array(profile))


def write(path: Path, start: Start) -> str:
    """Write a start as `.npz`; the file's name."""
    arrays = {f"rest_{number:03d}": weights for number, weights in enumerate(start.rest)}
    facts = {name: np.array(getattr(start, name)) for name in FACTS}
    if start.attributes:
        arrays |= {"attributes": np.array(start.attributes), "profile": start.profile}
    np.savez(
        path, allow_pickle=False, **facts, items=start.items, codes=start.codes, categories=start.categories, **arrays
    )
    return path.name


def read(raw: bytes, release: str = "") -> Start:
    """A start from the bytes of its file.

    Raises:
        TrainingError: it holds something else.
    """
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            rest = [file[name] for name in sorted(file.files) if name.startswith("rest_")]
            item_ids = [str(item) for item in file["item_ids"]]
            encoder, length, until = str(file["encoder"]), int(file["length"]), int(file["until"])
            arrays = (file["items"], file["codes"], file["categories"])
            start = Start(encoder, length, until, item_ids, *arrays, rest, release)
            if "attributes" not in file.files:
                return start
            attributes = [str(name) for name in file["attributes"]]
            return msgspec.structs.replace(start, attributes=attributes, profile=file["profile"])
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise TrainingError(f"the weights to begin with cannot be read ({error}); training begins without") from error


def begin(network: "Network", vocabulary: Vocabulary, start: Start) -> bool:
    """Give a built network the weights of a start; False, and nothing is changed, where the two do not fit.

    They fit where encoder, sizes and lengths are equal. An item that the start lacks begins at the mean of the known
    items of its category, or as the network drew it where there is none. A category has no name here: it is the one
    that most of its known items had. What attributes say is matched by their names and values.
    """
    items, categories, profile, rest = _parted(network)
    same = start.encoder == network.params.encoder and items.shape[1] == start.items.shape[1]
    if not same or [tuple(weights.shape) for weights in rest] != [weights.shape for weights in start.rest]:
        return False
    index = {item: number for number, item in enumerate(start.item_ids)}
    before = np.array([index.get(item, -1) for item in vocabulary.item_ids], np.int64)
    codes = network.category_of[1:].astype(np.int64)
    known = before >= 0
    rows = np.array(items)
    rows[1:][known] = start.items[1:][before[known]]
    for code in np.unique(codes[~known]):
        kin = known & (codes == code)
        if code and kin.any():
            rows[1:][~known & (codes == code)] = rows[1:][kin].mean(axis=0)
    items.assign(rows)
    if categories is not None and len(start.categories):
        categories.assign(_categories(np.array(categories), codes, before, start))
    if profile is not None and len(start.attributes):
        profile.assign(_attributes(np.array(profile), network.fields.labels, start))
    for variable, value in zip(rest, start.rest, strict=True):
        variable.assign(value)
    return True


def _attributes(rows: Float32, names: list[str], start: Start) -> Float32:
    """The vectors of attributes, those that the start knows as it has them."""
    index = {name: number for number, name in enumerate(start.attributes)}
    for row, name in enumerate(names):
        if name in index:
            rows[row] = start.profile[index[name]]
    return rows


def _categories(rows: Float32, codes: Int64, before: Int64, start: Start) -> Float32:
    """The rows of categories, each that of the category which most of its known items had at the start."""
    known = before >= 0
    rows[0] = start.categories[0]
    for code in np.unique(codes[known]):
        had = np.bincount(start.codes[before[known & (codes == code)]])
        if code and had.argmax():
            rows[code] = start.categories[had.argmax()]
    return rows


def _parted(network: "Network") -> tuple[Any, Any, Any, list[Any]]:
    """The variables of items, of categories and of profiles (None where there are none), and the others in order.

    The network is built first where it is not.
    """
    network.ready()
    items = network.table.weights[0]
    categories = network.category.weights[0] if network.category is not None else None
    profile = network.profile.weights[0] if len(network.fields) else None
    named = (items, categories, profile)
    rest = [weights for weights in network.weights if not any(weights is other for other in named)]
    return items, categories, profile, rest
