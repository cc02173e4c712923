"""What the embedded node is told."""

import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from stream.node import cluster_id


@given(st.uuids(), st.sampled_from([0x00, 0xF8, 0xFB, 0xFF]))
def test_a_cluster_id_never_looks_like_an_option(name: uuid.UUID, first: int) -> None:
    cluster = cluster_id(uuid.UUID(bytes=bytes([first]) + name.bytes[1:]))
    assert re.fullmatch(r"[A-P][A-Za-z0-9_-]{21}", cluster)
