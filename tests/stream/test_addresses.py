"""Addresses of servers as people write them."""

import pytest

from stream.addresses import Address, bracketed, parse_servers
from stream.errors import StreamError


def test_one_server_several_and_ipv6() -> None:
    assert parse_servers("kafka:9092") == [Address("kafka", 9092)]
    assert parse_servers("a.b-c.example:1, 10.0.0.1:2 ,[2001:db8::1]:3") == [
        Address("a.b-c.example", 1),
        Address("10.0.0.1", 2),
        Address("2001:db8::1", 3),
    ]


def test_an_address_reads_back() -> None:
    text = "a:9092,[::1]:9092,10.0.0.1:65535"
    assert ",".join(map(str, parse_servers(text))) == text


@pytest.mark.parametrize(
    "text", ["", "a", "a:", ":1", "a:b", "a:0", "a:65536", "a:1,,b:1", "::1:1", "[::1]", "a b:1", "http://a:1"]
)
def test_what_is_no_server_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(StreamError, match=r"is not a server; give HOST:PORT.*\[::1\]:9092"):
        parse_servers(text)


def test_brackets_stand_around_ipv6_only() -> None:
    assert [bracketed(host) for host in ("::1", "a", "10.0.0.1")] == ["[::1]", "a", "10.0.0.1"]
