"""What every source has to do, over the public data sets (where they are) and a file of one's own."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import polars as pl
import pytest

from stream.errors import SourceError
from stream.events import Interaction, Item, User, decode_event
from stream.sources.named import SOURCES, open_named
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions

FOLDERS = {
    "complete-journey": "complete-journey",
    "movielens-1m": "ml-1m",
    "movielens-small": "ml-latest-small",
    "online-retail": "uci-online-retail",
    "globo": "globo",
    "amazon": "amazon-2014-5core/Beauty.parquet",
    "amazon-json": "amazon-2014-5core/Musical_Instruments_5.json.gz",
    "lastfm-hetrec": "lastfm-hetrec2011",
    "rees46": "rees46-sample/2019-Oct-sample.csv",
}
READ = {
    "complete-journey": 75_000,
    "movielens-1m": 487_650,
    "movielens-small": 100_004,
    "online-retail": 541_909,
    "globo": 2_988_181,
    "amazon": 198_502,
    "amazon-json": 10_261,
    "lastfm-hetrec": 92_834,
    "rees46": 1_000,
}
"""Rows of the data sets, as their own documents say."""


@pytest.fixture(scope="module", params=[*FOLDERS, "own"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Source:
    if request.param == "own":
        file = tmp_path_factory.mktemp("own") / "events.csv"
        file.write_text(
            "uid,sku,ts,what\n" + "".join(f"u{n % 3},i{n % 5},{1_700_000_000 + n},buy\n" for n in range(50))
        )
        return open_table(file, TableOptions(columns={"user_id": "uid", "item_id": "sku", "at": "ts", "kind": "what"}))
    folder: Path = request.getfixturevalue("public_data") / FOLDERS[request.param]
    if not folder.exists():
        pytest.skip(f"{folder} is not there")
    return open_named(request.param.removesuffix("-json"), folder)


def test_the_report_adds_up(source: Source, request: pytest.FixtureRequest) -> None:
    report = source.report
    assert report.read == sum(step.removed for step in report.steps) + report.kept
    assert report.kept == len(source) > 0
    expected = READ.get(request.node.callspec.params["source"], 50)
    # MovieLens-small also has tags, Last.fm also friends: what is read is at least the events
    assert report.read >= expected


def test_events_are_in_order_of_time_with_ids_of_their_own(source: Source) -> None:
    events = source.events
    assert events["at"].is_sorted()
    assert events.select(pl.struct("user_id", "event_id").n_unique()).item() == len(source)
    assert source.start == events["at"][0] <= source.end == events["at"][-1]
    for name in ("user_id", "item_id", "event_id"):
        assert events[name].null_count() == 0
        assert events[name].str.len_chars().min() >= 1


def test_what_is_sent_fits_the_schema_and_the_key(source: Source) -> None:
    first = next(iter(source.encoded(200)))
    for key, value in first:
        event = decode_event(key, value, source.end + 1)
        assert isinstance(event, Interaction)
        assert event.domain == source.domain
    read = next(iter(source.read(200)))
    assert [msgspec.json.decode(value, type=Interaction) for _, value in first] == read


def test_a_shift_moves_times_and_nothing_else(source: Source) -> None:
    (_, value), (_, moved) = source.messages(3, 1)[0], source.messages(3, 1, shift_ms=1_000)[0]
    original, shifted = (msgspec.json.decode(raw, type=Interaction) for raw in (value, moved))
    assert msgspec.structs.replace(original, at=original.at + 1_000) == shifted


def test_windows_part_the_events(source: Source) -> None:
    middle = int(source.events["at"].median())  # type: ignore[arg-type]
    early, late = source.window(until=middle), source.window(start=middle)
    assert len(early) + len(late) == len(source)
    assert source.since(middle).events.equals(late.events)
    assert early.fingerprint() != late.fingerprint()
    assert source.fingerprint() == source.window().fingerprint()


def test_catalogue_and_profiles_fit_the_schema(source: Source) -> None:
    items = next(iter(source.catalogue(100)), [])
    users = next(iter(source.profiles(100)), [])
    assert all(isinstance(item, Item) and item.domain == source.domain for item in items)
    assert all(isinstance(user, User) and user.domain == source.domain for user in users)
    if source.items.height:
        assert source.items["item_id"].n_unique() == source.items.height


Check = Callable[[Source], None]


def online_retail(source: Source) -> None:
    assert source.report.removed("missing users") == 135_080
    assert any("cancel" in step.name and step.removed > 0 for step in source.report.steps)


def movielens(source: Source) -> None:
    assert source.users["user_id"].n_unique() == 6_040
    assert source.events["user_id"].n_unique() == 2_999
    assert source.events["value"].min() == 1
    assert source.events["value"].max() == 5


def rees46(source: Source) -> None:
    kinds = Counter(source.events["kind"].to_list())
    assert set(kinds) <= {"view", "cart", "purchase", "remove"}
    assert kinds["view"] > 900


@pytest.mark.parametrize(
    ("name", "check"), [("online-retail", online_retail), ("movielens-1m", movielens), ("rees46", rees46)]
)
def test_what_the_data_set_says_of_itself(public_data: Path, name: str, check: Check) -> None:
    check(open_named(name, public_data / FOLDERS[name]))


def test_the_default_needs_no_path() -> None:
    source = open_named("complete-journey")
    assert source.report.read == 1_469_307
    assert source.events["user_id"].n_unique() == 2_469
    assert source.users.height == 801


def test_a_name_that_is_not_known_and_a_path_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no data set 'netflix'; there are complete-journey"):
        open_named("netflix")
    with pytest.raises(SourceError, match="asks for the folder that holds it: globo:PATH"):
        open_named("globo")
    with pytest.raises(SourceError):
        open_named("movielens-1m", tmp_path)
    assert set(SOURCES) == {name.removesuffix("-json") for name in FOLDERS}
