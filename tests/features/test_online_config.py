"""The setting `store` as Feast's configuration: read back by Feast's own parser."""

from typing import Any

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore

from features.errors import FeatureError
from features.online_config import has_secret, online_config

TIMEOUTS = {"socket_timeout": 5, "socket_connect_timeout": 2}


def read_by_feast(store: str) -> tuple[Any, Any, dict[str, Any]]:
    config = online_config(store)
    nodes, options = RedisOnlineStore._parse_connection_string(config["connection_string"])
    return config["redis_type"], [f"{node['host']}:{node['port']}" for node in nodes], options


def test_sqlite_is_a_file_beside_the_registry() -> None:
    assert online_config("sqlite") == {"type": "sqlite", "path": "online.db"}


@pytest.mark.parametrize(
    ("store", "kind", "servers", "options"),
    [
        ("redis://h", "redis", ["h:6379"], {"db": 0}),
        ("redis://h:1/3", "redis", ["h:1"], {"db": 3}),
        ("redis://:pw@h:1", "redis", ["h:1"], {"db": 0, "password": "pw"}),
        ("rediss://ann:pw@h:1", "redis", ["h:1"], {"db": 0, "username": "ann", "password": "pw", "ssl": True}),
        ("redis://:12345@h:1", "redis", ["h:1"], {"db": 0, "password": "12345"}),
        ("redis://:true@h:1", "redis", ["h:1"], {"db": 0, "password": "true"}),
        ("redis://:a%2Cb%3Dc%40d%22@h:1", "redis", ["h:1"], {"db": 0, "password": 'a,b=c@d"'}),
        ("redis+sentinel://s1:1,s2/main/2", "redis_sentinel", ["s1:1", "s2:26379"], {"db": 2}),
        ("rediss+sentinel://:pw@s1:1/main", "redis_sentinel", ["s1:1"], {"db": 0, "password": "pw", "ssl": True}),
        ("redis+cluster://:pw@a:1,b:2", "redis_cluster", ["a:1", "b:2"], {"password": "pw"}),
        ("rediss+cluster://a,b/", "redis_cluster", ["a:6379", "b:6379"], {"ssl": True}),
        (
            "rediss://h:1?ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            "redis",
            ["h:1"],
            {"db": 0, "ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
        ),
    ],
)
def test_every_form_reaches_feast(store: str, kind: str, servers: list[str], options: dict[str, Any]) -> None:
    assert read_by_feast(store) == (kind, servers, options | TIMEOUTS)


def test_the_master_of_a_sentinel() -> None:
    assert online_config("redis+sentinel://s1:1/main/2")["sentinel_master"] == "main"


def test_a_password_is_noticed() -> None:
    assert has_secret(online_config("redis://:pw@h"))
    assert not has_secret(online_config("redis://h"))
    assert not has_secret(online_config("sqlite"))


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("postgres://h:1", "give sqlite or redis://"),
        ("redis:h:1", "give sqlite or redis://"),
        ("redis://", "give sqlite or redis://"),
        ("redis://a,b", "redis:// names one server, not 2"),
        ("redis://h:x", "is not a server; give HOST:PORT"),
        ("redis://h:70000", "is not a server"),
        ("redis://[::1]:6379", "takes no IPv6 address; give a host name"),
        ("redis://ann@h:1", "a user needs a password"),
        ("redis://h:1/x", "the database behind the last / is a number"),
        ("redis+sentinel://h:1", "needs the name of its master"),
        ("redis+cluster://h:1/2", "a Redis cluster has no databases"),
        ("redis://h:1?ssl_ca_certs=/ca.pem", "no effect without TLS; write rediss"),
        ("rediss://h:1?verify=no", "the option verify does not exist"),
    ],
)
def test_what_feast_cannot_do_is_refused_with_the_cure(store: str, message: str) -> None:
    with pytest.raises(FeatureError, match=message):
        online_config(store)
