"""Arrays of records in slices: the same elements as in one go, and turns for other requests."""

import asyncio
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.http import record_arrays
from serving.http.problems import Problem
from serving.http.record_arrays import split_array

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.just('},"'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(elements=st.lists(VALUES, max_size=20), indent=st.sampled_from([None, 1]))
def test_slices_hold_the_elements_of_the_whole(elements: list[object], indent: int | None) -> None:
    body = b" \n" + json.dumps(elements, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_arrays, "SLICE_BYTES", 5)
        assert [json.loads(record) for record in asyncio.run(split_array(body))] == elements


@pytest.mark.parametrize("body", [b"[{},]", b"[{}", b"[{}]]", b"[{} {}]", b"[,{}]", b'[{"a":1},{"b"},{}]', b"[\xff]"])
@pytest.mark.parametrize("size", [1, 1_000])
def test_what_is_no_array_is_refused(body: bytes, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_arrays, "SLICE_BYTES", size)
    with pytest.raises(Problem) as refused:
        asyncio.run(split_array(body))
    assert (refused.value.status_code, refused.value.type_) == (400, "not-json")


def test_a_full_body_lets_others_have_a_turn() -> None:
    record = {"user_id": "u", "attributes": {"text": "x" * 3_000}, "at": 1}
    body = msgspec.json.encode([record] * 10_000)

    async def run() -> tuple[int, int]:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        records = await split_array(body)
        task.cancel()
        return len(records), turns

    records, turns = asyncio.run(run())
    assert records == 10_000
    assert turns >= len(body) // record_arrays.SLICE_BYTES


def test_a_record_far_beyond_the_limit_is_refused_early() -> None:
    body = b'[{"text":"' + b"x" * record_arrays.SLICE_BYTES + b'","list":[' + b"{}," * 100 + b"{}]}]"
    with pytest.raises(Problem) as refused:
        asyncio.run(split_array(body))
    assert (refused.value.status_code, refused.value.type_) == (413, "too-large")
