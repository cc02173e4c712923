"""The data sets that are known by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.cleaning import CleaningOptions
from stream.errors import SourceError
from stream.sources.amazon import open_amazon
from stream.sources.complete_journey import open_complete_journey
from stream.sources.globo import open_globo
from stream.sources.lastfm import open_lastfm
from stream.sources.movielens import open_movielens_1m, open_movielens_small
from stream.sources.online_retail import open_online_retail
from stream.sources.rees46 import open_rees46
from stream.sources.source import Source

DEFAULT: Final = "complete-journey"


class DataSet(msgspec.Struct, frozen=True):
    """A data set: how it is opened, its domain, whether it asks for a file or a folder, and what it is."""

    open: Callable[..., Source]
    domain: str
    wants: str
    about: str


SOURCES: Final[dict[str, DataSet]] = {
    "complete-journey": DataSet(open_complete_journey, "shop", "nothing", "groceries, in a package of its own"),
    "movielens-1m": DataSet(open_movielens_1m, "video", "folder", "film ratings, ratings.dat"),
    "movielens-small": DataSet(open_movielens_small, "video", "folder", "film ratings, ratings.csv"),
    "online-retail": DataSet(open_online_retail, "shop", "folder", "a British shop, with cancellations"),
    "globo": DataSet(open_globo, "news", "folder", "news clicks"),
    "amazon": DataSet(open_amazon, "shop", "file", "reviews as purchases, JSON lines or Parquet"),
    "lastfm-hetrec": DataSet(open_lastfm, "music", "folder", "play counts without times"),
    "rees46": DataSet(open_rees46, "shop", "file", "views, carts and purchases, one csv a month"),
}


def open_named(
    name: str,
    path: Path | None = None,
    *,
    domain: str | None = None,
    cleaning: CleaningOptions | None = None,
    **options: Any,
) -> Source:
    """The data set of that name, from `path` where it needs one.

    Raises:
        SourceError: no such name, no path given, or the data cannot be read.
    """
    known = SOURCES.get(name)
    if known is None:
        known_names = ", ".join(SOURCES)
        raise SourceError(f"no data set {name!r}; there are {known_names}; a file of your own: coldstream import")
    if path is None and known.wants != "nothing":
        raise SourceError(f"{name} ({known.about}) asks for the {known.wants} that holds it: {name}:PATH")
    return known.open(*([] if path is None else [path]), domain=domain or known.domain, cleaning=cleaning, **options)
