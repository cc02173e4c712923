"""Updates of items and users merge field by field, whatever the order of arrival."""

from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.catalogue import MAX_ROW_BYTES, CatalogueEntry, ItemRow, ProfileRow, applied, item_row, merge, profile_row
from stream.errors import EventError
from stream.events import Item, User, decode, encode

NOON = 1_760_000_000_000
TITLES = st.none() | st.text(max_size=3)
ATTRIBUTES = st.none() | st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 9), max_size=3)


@st.composite
def updates(draw: st.DrawFn) -> list[ItemRow]:
    """Rows of one update each, of one item; times repeat, offsets do not."""
    rows = []
    for offset in range(draw(st.integers(1, 6))):
        fields: dict[str, Any] = draw(
            st.fixed_dictionaries(
                {}, optional={"title": TITLES, "available": st.none() | st.booleans(), "attributes": ATTRIBUTES}
            )
        )
        rows.append(item_row(Item("tea", NOON + draw(st.integers(0, 3)), **fields), offset))
    return rows


def folded(rows: list[ItemRow]) -> ItemRow:
    result = rows[0]
    for row in rows[1:]:
        result = merge(result, row)
    return result


@given(updates(), st.randoms())
def test_the_order_of_arrival_does_not_matter(rows: list[ItemRow], random: Any) -> None:
    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert msgspec.json.encode(folded(shuffled)) == msgspec.json.encode(folded(rows))


@given(updates(), st.integers(0, 6), st.integers(0, 6))
def test_merging_is_associative_and_idempotent(rows: list[ItemRow], first: int, second: int) -> None:
    low, high = sorted((min(first, len(rows)), min(second, len(rows))))
    parts = [folded(part) for part in (rows[:low], rows[low:high], rows[high:]) if part]
    whole = folded(rows)
    assert folded(parts) == whole
    assert folded([*parts[:1], folded(parts[1:])] if len(parts) > 1 else parts) == whole
    assert merge(whole, whole) == whole
    assert all(merge(whole, row) == whole for row in rows)  # a replay


@given(updates())
def test_the_merge_agrees_with_the_newest_word_on_each_field(rows: list[ItemRow]) -> None:
    """A slow truth: sort by time, then position, and let each update overwrite what it names."""
    title, available, attributes = None, True, {}
    for row in sorted(
        rows, key=lambda row: (row.at, max([*row.clocks.values(), *row.attribute_clocks.values(), row.cleared]))
    ):
        title = row.title if "title" in row.clocks else title
        available = row.available if "available" in row.clocks else available
        attributes = {} if row.cleared > (0, 0) else attributes
        for name in row.attribute_clocks:
            attributes.pop(name, None)
            attributes |= {name: row.attributes[name]} if name in row.attributes else {}
    merged = folded(rows)
    assert (merged.title, merged.available, merged.attributes) == (title, available, attributes)


def test_absent_is_unchanged_and_null_is_clear() -> None:
    full = Item("tea", NOON, title="Tea", category="drinks", expires_at=NOON, attributes={"brand": "House", "price": 3})
    row = applied(None, item_row(full, 0))
    row = applied(row, item_row(Item("tea", NOON + 1, available=False), 1))
    entry = CatalogueEntry("tea", NOON + 1, "shop", "Tea", "drinks", False, NOON, {"brand": "House", "price": 3})
    assert row.record() == entry
    nulls = Item("tea", NOON + 2, category=None, available=None, expires_at=None, attributes={"brand": None})
    row = applied(row, item_row(nulls, 2))
    assert row.record() == CatalogueEntry("tea", NOON + 2, title="Tea", attributes={"price": 3})
    row = applied(row, item_row(Item("tea", NOON + 3, attributes=None), 3))
    assert row.record() == CatalogueEntry("tea", NOON + 3, title="Tea")


def test_an_older_word_fills_gaps_only() -> None:
    rows = [
        profile_row(User("ann", NOON + 5, segment="new", attributes={"plan": "gold"}), 0),
        profile_row(User("ann", NOON, segment="old", attributes={"plan": "free", "age": 40}), 1),
        profile_row(User("ann", NOON + 9, attributes={"plan": None}), 2),
    ]
    for order in permutations(rows):
        row: ProfileRow = order[0]
        for update in order[1:]:
            row = merge(row, update)
        assert (row.segment, row.attributes, row.at) == ("new", {"age": 40}, NOON + 9)


def test_of_equal_times_the_later_in_the_log_wins() -> None:
    first, second = item_row(Item("tea", NOON, title="a"), 4), item_row(Item("tea", NOON, title="b"), 5)
    assert merge(first, second).title == merge(second, first).title == "b"


def test_a_row_that_would_not_fit_into_a_message_is_refused() -> None:
    updates = [Item("tea", NOON, attributes={f"a{n}": "x" * 50_000}) for n in range(MAX_ROW_BYTES // 50_000 + 1)]
    row = folded([item_row(update, n) for n, update in enumerate(updates[:-1])])
    with pytest.raises(EventError, match="limit is 262144") as refused:
        applied(row, item_row(updates[-1], 9))
    assert refused.value.reason == "too-large"


def test_an_update_says_on_the_wire_only_what_it_names() -> None:
    update = Item("tea", NOON, title=None, attributes={"brand": None})
    assert (
        encode(update) == b'{"type":"item","item_id":"tea","at":1760000000000,"title":null,"attributes":{"brand":null}}'
    )
    assert decode(encode(update), NOON) == update
