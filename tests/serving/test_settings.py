"""Settings: who wins, and what is said of those that do not fit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import certifi
import pytest
from msgspec import inspect

from serving.setting_reference import BEGIN, END, reference_table, setting_rows, settings_schema
from serving.settings import SHORTEST_S, Settings, SettingsError, describe_range, duration_seconds, read, validate


def test_flags_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    security = 'security_protocol = "SSL"\nssl_check_hostname = false\n'
    file.write_text(f'port = 1\nkafka_port = 2\nhost = "h"\nkafka = "a:1"\n[kafka_security]\n{security}')
    settings = read(file, {"COLDSTREAM_PORT": "3", "COLDSTREAM_KAFKA_PORT": "4"}, {"port": 5, "epochs": None})
    assert (settings.port, settings.kafka_port, settings.host, settings.batch_ms) == (5, 4, "h", 20)
    assert settings.kafka_security == {"security_protocol": "SSL", "ssl_check_hostname": "false"}
    assert settings.bootstrap == "a:1"
    assert read(None, {"COLDSTREAM_KAFKA_PORT": "4"}).bootstrap == "127.0.0.1:4"
    assert read(file, {}, {"kafka": "cluster:9092"}).bootstrap == "cluster:9092"


def test_the_reference_page_is_current() -> None:
    """If not: python -m serving.setting_reference docs/settings.md."""
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip() == reference_table()


def test_the_reference_has_name_default_values_and_meaning_of_every_setting() -> None:
    rows = {row.name: row for row in setting_rows()}
    assert list(rows) == list(Settings.__struct_fields__)
    assert [row.name for row in rows.values() if not row.meaning.endswith(".") or "|" in "".join(row)] == []
    assert rows["canary_alpha"].default == "0.05"
    assert rows["canary_alpha"].values == "a number above 0 and below 1"
    assert rows["kafka"].default == rows["kafka_security"].default == ""
    assert rows["log_format"].values == "json or text"


def test_the_example_of_the_page_is_accepted(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
    example = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0]
    (tmp_path / "own.toml").write_text(example.replace("/etc/coldstream/ca.pem", certifi.where()))

    settings = read(tmp_path / "own.toml", {})

    assert settings.bootstrap.count(":9092") == 3
    assert settings.kafka_security["sasl_username"] == "coldstream"


def test_the_schema_of_a_settings_file() -> None:
    schema = settings_schema()
    properties = schema["$defs"]["Settings"]["properties"]
    assert set(properties) == set(Settings.__struct_fields__)
    assert schema["$defs"]["Settings"]["additionalProperties"] is False
    assert properties["port"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 65_535,
        "default": 8080,
        "description": "Port of the API.",
    }
    assert re.fullmatch(properties["train_every"]["pattern"], "1.5h")
    assert not re.fullmatch(properties["train_every"]["pattern"], "soon")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prot = 1", "prot"),
        ("port = 'x'", "port"),
        ("port = ", "not TOML"),
        ('recommender = "magic"', "recommender"),
        ('domains = "shop,a/b"', "'a/b' does not fit"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=message):
        read(file, {})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no such settings file"):
        read(tmp_path / "none.toml", {})


def test_domains_hold_the_default_one() -> None:
    assert Settings(domain="books", domains="shop, news").domain_names == ("books", "shop", "news")


def test_durations() -> None:
    assert [duration_seconds(text) for text in ("90s", "15m", "1.5h", "1d")] == [90, 900, 5400, 86400]
    with pytest.raises(SettingsError, match="such as 15m"):
        duration_seconds("soon")


def test_what_look_ups_have_by_default_may_differ_by_domain(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("diversity = 0.3\n[explore]\nnews = 0.05\n")
    settings = read(file, {"COLDSTREAM_PER_CATEGORY": '{"shop": 2}', "COLDSTREAM_CATEGORIES": "3"})
    assert [settings.of("explore", name) for name in ("news", "shop")] == [0.05, None]
    assert [settings.of("per_category", name) for name in ("news", "shop")] == [None, 2]
    assert (settings.of("diversity", "news"), settings.of("categories", "news")) == (0.3, 3)
    assert read(None, {"COLDSTREAM_EXPLORE": "0.1"}).of("explore", "music") == 0.1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("explore = 0.9", "give a number from 0 to 0.5, or a table"),
        ("diversity = -1", "give a number from 0 to 1, or a table"),
        ("[per_category]\ngarden = 2", "'garden' is not one of"),
        ("[per_category]\nshop = 0", "give a whole number from 1 to 200, or a table"),
    ],
)
def test_what_look_ups_cannot_have_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=message):
        read(file, {})


HUNDRED_YEARS_MS = 36_500 * 24 * 60 * 60 * 1000
PORT, SHARE, COUNT = ([1, 65_535], [0, 65_536]), ([0, 1], [-0.1, 1.1]), ([1, 1_000_000_000], [0, 1_000_000_001])
SOME_SHARE, CHANCE = ([0.001, 1], [0, 1.1]), ([0.001, 0.999], [0, 1])
BOUNDS: dict[str, tuple[list[object], list[object]]] = {
    "kafka_port": PORT,
    "port": PORT,
    "api_metrics_port": PORT,
    "consumer_metrics_port": PORT,
    "archive_metrics_port": PORT,
    "trainer_metrics_port": PORT,
    "partitions": ([1, 2_000], [0, 2_001]),
    "replication": ([0, 1], [-1, 32_768]),
    "min_insync_replicas": ([0, 1], [-1, 32_768]),
    "retention_ms": ([-1, HUNDRED_YEARS_MS], [-2, HUNDRED_YEARS_MS + 1]),
    "max_connections": ([16, 1_000_000], [15, 1_000_001]),
    "idle_timeout_ms": ([100, 3_600_000], [99, 3_600_001]),
    "body_timeout_ms": ([100, 3_600_000], [99, 3_600_001]),
    "max_streams": COUNT,
    "max_streams_per_address": COUNT,
    "max_streams_per_user": COUNT,
    "batch_events": COUNT,
    "batch_ms": ([1, 60_000], [0, 60_001]),
    "cached_users": COUNT,
    "popularity_every_ms": ([1, 3_600_000], [0, 3_600_001]),
    "max_future_ms": ([0, HUNDRED_YEARS_MS], [-1, HUNDRED_YEARS_MS + 1]),
    "late_ms": ([0, HUNDRED_YEARS_MS], [-1, HUNDRED_YEARS_MS + 1]),
    "history_length": ([1, 1_000], [0, 1_001]),
    "session_timeout_ms": ([6_000, 1_800_000], [5_999, 1_800_001]),
    "after_timeout_ms": ([0, 600_000], [-1, 600_001]),
    "train_every": (["1s", "1.5h", "36500d"], ["0.9s", "36501d", "abc", "15", "-1m", "", "9" * 400 + "d"]),
    "epochs": ([0, 100_000], [-1, 100_001]),
    "train_minutes": ([0.01, 10_080], [0, -1, 10_081]),
    "gate_margin": ([-1, 10], [-1.1, 10.1]),
    "gate_confidence": CHANCE,
    "gate_coverage": SHARE,
    "gate_latency_ms": ([0.1, 60_000], [0, 60_001]),
    "gate_dominant_item": SOME_SHARE,
    "gate_personalization": SHARE,
    "gate_refresh": (["0s", "36500d"], ["36501d", "never"]),
    "gate_tolerance": SHARE,
    "drift_every": (["0s", "36500d"], ["36501d", "soon"]),
    "drift_index": ([0.001, 1_000], [0, 1_001]),
    "drift_hit_drop": SHARE,
    "drift_events": COUNT,
    "diversity": SHARE,
    "per_category": ([1, 200], [0, 201]),
    "categories": ([1, 200], [0, 201]),
    "explore": ([0, 0.5], [-0.1, 0.6]),
    "canary_share": SOME_SHARE,
    "canary_alpha": CHANCE,
    "canary_impressions": COUNT,
    "canary_margin": SHARE,
    "canary_errors": SHARE,
    "canary_latency": ([1, 1_000], [0.9, 1_001]),
    "canary_hours": ([0, 876_000], [-3, 876_001]),
    "click_window_ms": ([1, 172_800_000], [0, 172_800_001]),
    "waiting_lists": ([1, 10_000_000], [0, 10_000_001]),
}


def parts_of(kind: inspect.Type) -> list[inspect.Type]:
    return list(kind.types) if isinstance(kind, inspect.UnionType) else [kind]


def test_every_number_and_duration_is_in_the_table_of_bounds() -> None:
    kind = inspect.type_info(Settings)
    assert isinstance(kind, inspect.StructType)
    numbers = {
        field.name
        for field in kind.fields
        for part in parts_of(field.type)
        if isinstance(part, inspect.IntType | inspect.FloatType)
    }
    assert set(BOUNDS) == numbers | set(SHORTEST_S)
    assert [name for name in Settings.__struct_fields__ if name.endswith("_every") and name not in SHORTEST_S] == []


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, pair in BOUNDS.items() for value in pair[0]])
def test_a_value_at_its_bound_is_accepted(name: str, value: object) -> None:
    variable = read(None, {f"COLDSTREAM_{name.upper()}": str(value)})
    assert getattr(variable, name) == getattr(validate({name: value}), name) == value


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, pair in BOUNDS.items() for value in pair[1]])
def test_a_value_beyond_its_bound_is_refused_with_name_value_and_what_is_allowed(name: str, value: object) -> None:
    for ask in (lambda: read(None, {f"COLDSTREAM_{name.upper()}": str(value)}), lambda: validate({name: value})):
        with pytest.raises(SettingsError) as refused:
            ask()
        assert str(refused.value) == f"settings: {name}={value} does not fit; give {describe_range(name)}"


@pytest.mark.parametrize("name", [name for name in BOUNDS if name not in SHORTEST_S])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "many", ""])
def test_what_is_no_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"settings: {name}={value} does not fit"):
        read(None, {f"COLDSTREAM_{name.upper()}": value})


def test_what_is_allowed_is_said_in_words() -> None:
    assert {name: describe_range(name) for name in ("port", "canary_alpha", "canary_share", "explore", "rollout")} == {
        "port": "a whole number from 1 to 65535",
        "canary_alpha": "a number above 0 and below 1",
        "canary_share": "a number above 0, at most 1",
        "explore": "a number from 0 to 0.5, or a table",
        "rollout": "canary or promote",
    }
    assert describe_range("train_every") == "a number and s, m, h or d, such as 15m, from 1s to 36500d"
    assert describe_range("warm_start") == "true or false"


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("COLDSTREAM_CANARY_ALPHABET", "does not exist; did you mean COLDSTREAM_CANARY_ALPHA?"),
        ("COLDSTREAM_PROT", "does not exist; did you mean COLDSTREAM_PORT?"),
        ("COLDSTREAM_ZZZ", "does not exist; docs/settings.md lists every setting"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused(variable: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read(None, {variable: "1"})
    assert f"settings: {variable} {message}" in str(refused.value)


def test_variables_of_others_are_left_alone() -> None:
    others = {"COLDSTREAM_CACHE": "c", "COLDSTREAM_DATA": "d", "COLDSTREAMS": "e", "KAFKA_PORT": "0"}
    assert read(None, others) == Settings()


def test_a_key_of_the_file_that_is_no_setting_is_named_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("canary_alfa = 0.1")
    with pytest.raises(SettingsError, match=r"own\.toml: canary_alfa does not exist; did you mean canary_alpha\?"):
        read(file, {})


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("port = 81")
    assert read(None, {"COLDSTREAM_SETTINGS": str(file)}).port == 81
    with pytest.raises(SettingsError, match="no such settings file"):
        read(None, {"COLDSTREAM_SETTINGS": str(tmp_path / "none.toml")})


def test_a_password_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as refused:
        read(None, {"COLDSTREAM_KAFKA_SECURITY": "sasl_password=secret"})
    assert str(refused.value) == "settings: kafka_security does not fit; give a table"


def test_a_table_that_is_no_json_is_refused() -> None:
    with pytest.raises(SettingsError, match="COLDSTREAM_EXPLORE is not JSON"):
        read(None, {"COLDSTREAM_EXPLORE": "{news: 0.1}"})


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        (("settings",), {"COLDSTREAM_CANARY_ALPHA": "0"}, "canary_alpha=0 does not fit; give a number above 0"),
        (("settings",), {"COLDSTREAM_CANARY_ALPHABET": "0"}, "did you mean COLDSTREAM_CANARY_ALPHA?"),
        (("train", "--every", "soon"), {}, "train_every=soon does not fit"),
    ],
)
def test_the_command_line_says_it_in_one_line(words: tuple[str, ...], variables: dict[str, str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.cli", *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert message in done.stderr


LOGIN = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "ann"}


def test_repr_masks_the_values_of_secrets() -> None:
    security = {**LOGIN, "sasl_password": "hunter2"}
    settings = validate(
        {"kafka": "a:1", "kafka_security": security, "store": "redis://ann:se%20cret@h:1", "port": 8099}
    )

    assert "hunter2" not in f"{settings!r} {settings}"
    assert "se%20cret" not in f"{settings!r} {settings}"
    assert "'sasl_username': '********', 'sasl_password': '********'" in repr(settings)
    assert "store='redis://ann:********@h:1'" in repr(settings)
    assert "port=8099" in repr(settings)
    assert settings.kafka_security["sasl_password"] == "hunter2"
    assert set(settings.secrets) == {"se%20cret", "se cret", "hunter2"}


def test_the_settings_that_are_shown_have_no_secrets() -> None:
    variables = {
        "COLDSTREAM_KAFKA": "a:1",
        "COLDSTREAM_KAFKA_SECURITY": json.dumps({**LOGIN, "sasl_password": "hunter2"}),
        "COLDSTREAM_STORE": "rediss://:hunter3@h:1/2",
    }
    for words in (["settings"], ["settings", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "serving.cli", *words],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "hunter" not in done.stdout + done.stderr
        assert "rediss://:********@h:1/2" in done.stdout
        assert "SASL_PLAINTEXT" in done.stdout


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kafka": "a"}, "kafka: 'a' is not a server; give HOST:PORT, several separated by commas"),
        ({"kafka": "a:9092,b"}, "'b' is not a server"),
        ({"kafka": "a:9092,"}, "'' is not a server"),
        ({"kafka": "::1:9092"}, "'::1:9092' is not a server; .*in brackets"),
        ({"kafka": "a:0"}, "'a:0' is not a server"),
        ({"kafka": "a:65536"}, "'a:65536' is not a server"),
        ({"kafka": "kafka://a:9092"}, "is not a server"),
        ({"replication": 3}, "replication=3 needs a cluster; give kafka=HOST:PORT"),
        ({"min_insync_replicas": 2}, "min_insync_replicas=2 needs a cluster"),
        ({"kafka": "a:1", "replication": 2, "min_insync_replicas": 3}, "exceeds replication=2.*give at most"),
        ({"kafka_security": {"security_protocol": "SSL"}}, "no effect on the embedded broker; give kafka=HOST:PORT"),
        ({"kafka": "a:1", "kafka_security": {"sasl_user": "ann"}}, "sasl_user does not exist; did you mean sasl_user"),
        ({"kafka": "a:1", "kafka_security": {"security_protocol": "SASL_SSL"}}, "SASL_SSL needs sasl_mechanism"),
        ({"store": "redis:/h:1"}, "not a store that is known; give sqlite or redis://"),
        ({"store": "redis://[::1]:6379"}, "takes no IPv6 address"),
    ],
)
def test_connections_that_cannot_work_are_refused_with_the_cure(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=f"settings: .*{message}"):
        validate(values)


@pytest.mark.parametrize(
    "values",
    [
        {"kafka": "a:1", "kafka_security": {**LOGIN, "sasl_pasword": "hunter2"}},
        {"kafka": "a:1", "kafka_security": {**LOGIN, "sasl_password": ["hunter2"]}},
        {"kafka": "a:1", "kafka_security": "hunter2"},
        {"store": "rediss+x://ann:hunter2@h:1"},
        {"store": "redis://ann:hunter2@h:1/x"},
        {"store": ["redis://ann:hunter2@h:1"]},
        {"kafka": "ann:hunter2@h:1"},
    ],
)
def test_an_error_names_no_secret(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        validate(values)
    assert "hunter2" not in str(refused.value)


def test_several_servers_and_their_order() -> None:
    assert validate({"kafka": " b:9092, a:9093,[::1]:1,b:9092"}).bootstrap == "b:9092,a:9093,[::1]:1"


def test_the_hosts_of_processes() -> None:
    settings = validate({"host": "0.0.0.0", "consumer_host": "consumer"})
    assert [settings.host_of(name) for name in ("api", "consumer", "archive", "trainer")] == [
        *("127.0.0.1", "consumer", "127.0.0.1", "127.0.0.1")
    ]
    assert validate({"host": "::"}).api_url == "http://[::1]:8080"
    assert validate({"host": "10.0.0.7"}).api_url == "http://10.0.0.7:8080"
    assert validate({"api_host": "api"}).api_url == "http://api:8080"
