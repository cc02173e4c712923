"""MovieLens (GroupLens): ratings of films. The 1M form (`::`, latin-1) and the csv form (latest-small, 20M, 25M, 32M).

A rating is an event of kind `rate`, its stars the value. A film's category is its first genre. Profiles (1M only) have
the age group as segment. Most people rate many films in one sitting, and ties in time are kept in the file's order.
"""

from pathlib import Path
from typing import Final

import polars as pl

from stream.cleaning import LINE, Cleaner, CleaningOptions
from stream.sources.delimited import TextForm, read_text
from stream.sources.files import find, find_optional
from stream.sources.source import Source, assemble, keep_first, keep_users, row_faults, unique_ids
from stream.sources.times import to_epoch_ms

AGES: Final = {"1": "under 18", "18": "18-24", "25": "25-34", "35": "35-44", "45": "45-49", "50": "50-55", "56": "56+"}
OCCUPATIONS: Final = (
    "other",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)
COMMA: Final = TextForm(delimiter=",")
RATINGS_DAT: Final = TextForm(delimiter="::", quotes=False, columns=("user", "item", "rating", "timestamp"))
MAX_TAGS: Final = 20


def open_movielens_1m(folder: Path, *, domain: str = "video", cleaning: CleaningOptions | None = None) -> Source:
    """ratings.dat, movies.dat and users.dat as in ml-1m.zip.

    Raises:
        SourceError: a file is missing or cannot be read.
    """
    cleaner = Cleaner("movielens-1m", cleaning or CleaningOptions())
    file = find(folder, "ratings.dat")
    events = _events(cleaner, file, read_text(file, cleaner, RATINGS_DAT), "ml1m")
    return assemble(
        cleaner, cleaner.source, domain, events, items=_films_1m(cleaner, folder), users=_people_1m(cleaner, folder)
    )


def open_movielens_small(folder: Path, *, domain: str = "video", cleaning: CleaningOptions | None = None) -> Source:
    """ratings.csv, movies.csv and tags.csv as in ml-latest-small.zip (and its larger siblings).

    Raises:
        SourceError: a file is missing or cannot be read.
    """
    cleaner = Cleaner("movielens-small", cleaning or CleaningOptions())
    file = find(folder, "ratings.csv")
    raw = read_text(file, cleaner, COMMA).rename({"userId": "user", "movieId": "item"}, strict=False)
    events = _events(cleaner, file, raw, "ml")
    return assemble(cleaner, cleaner.source, domain, events, items=_films_csv(cleaner, folder))


def _events(cleaner: Cleaner, file: Path, raw: pl.DataFrame, prefix: str) -> pl.DataFrame:
    raw = keep_users(cleaner, raw, "user")
    at, note = to_epoch_ms(raw["timestamp"])
    cleaner.note(f"at: {note}")
    typed = raw.select(
        LINE,
        user_id="user",
        item_id="item",
        kind=pl.lit("rate"),
        at=at,
        value=pl.col("rating").cast(pl.Float64, strict=False),
    )
    reasons = row_faults(typed, cleaner.now_ms, {"at": raw["timestamp"], "value": raw["rating"]})
    events = keep_first(cleaner, cleaner.keep_parsed(file.name, raw, typed, reasons))
    return events.with_columns(event_id=unique_ids(pl.format("{}-{}-{}", pl.lit(prefix), "user_id", "item_id")))


def _films(raw: pl.DataFrame, attributes: list[pl.Expr]) -> pl.DataFrame:
    year = pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int64)
    genres = pl.when(pl.col("genres") != "(no genres listed)").then(pl.col("genres")).str.split("|")
    return raw.select(
        item_id="item",
        title="title",
        category=genres.list.first(),
        attributes=pl.struct(year.alias("year"), genres.alias("genres"), *attributes),
    )


def _films_1m(cleaner: Cleaner, folder: Path) -> pl.DataFrame:
    raw = read_text(
        find(folder, "movies.dat"),
        cleaner.of("items"),
        TextForm(delimiter="::", encoding="latin-1", quotes=False, columns=("item", "title", "genres")),
    )
    return _films(raw, [])


def _films_csv(cleaner: Cleaner, folder: Path) -> pl.DataFrame:
    raw = read_text(find(folder, "movies.csv"), cleaner.of("items"), COMMA)
    raw = raw.rename({"movieId": "item"})
    tagged = find_optional(folder, "tags.csv")
    if tagged is None:
        return _films(raw, [])
    counted = cleaner.of("tags")
    tags = counted.keep("empty", read_text(tagged, counted, COMMA), pl.col("tag").is_not_null())
    counted.close(tags.height)
    by_film = (
        tags.group_by("movieId", pl.col("tag").str.to_lowercase(), maintain_order=True)
        .len()
        .sort("len", descending=True, maintain_order=True)
        .group_by("movieId", maintain_order=True)
        .agg(pl.col("tag").head(MAX_TAGS).alias("tags"))
    )
    return _films(
        raw.join(by_film, left_on="item", right_on="movieId", how="left", maintain_order="left"), [pl.col("tags")]
    )


def _people_1m(cleaner: Cleaner, folder: Path) -> pl.DataFrame | None:
    file = find_optional(folder, "users.dat")
    if file is None:
        return None
    raw = read_text(
        file,
        cleaner.of("users"),
        TextForm(delimiter="::", quotes=False, columns=("user", "gender", "age", "occupation", "zip")),
    )
    named = {str(code): name for code, name in enumerate(OCCUPATIONS)}
    age = pl.col("age").replace_strict(AGES, default=None)
    occupation = pl.col("occupation").replace_strict(named, default=None)
    return raw.select(
        user_id="user",
        segment=age,
        attributes=pl.struct("gender", age.alias("age"), occupation.alias("occupation"), "zip"),
    )
