"""Settings: who wins, and what is said of those that do not fit."""

from pathlib import Path

import pytest

from serving.settings import Settings, SettingsError, read
from serving.trainer import seconds_of


def test_flags_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('port = 1\nkafka_port = 2\nhost = "h"\n[kafka_security]\nsasl_mechanism = "PLAIN"\n')
    found = read(file, {"COLDSTREAM_PORT": "3", "COLDSTREAM_KAFKA_PORT": "4"}, {"port": 5, "kafka": None})
    assert (found.port, found.kafka_port, found.host, found.batch_ms) == (5, 4, "h", 20)
    assert found.kafka_security == {"sasl_mechanism": "PLAIN"}
    assert found.bootstrap == "127.0.0.1:4"
    assert read(file, {}, {"kafka": "cluster:9092"}).bootstrap == "cluster:9092"


def test_every_setting_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
    assert [name for name in Settings.__struct_fields__ if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("content", "said"),
    [("prot = 1", "prot"), ("port = 'x'", "port"), ("port = ", "not TOML"), ('recommender = "magic"', "recommender")],
)
def test_what_does_not_fit_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=said):
        read(file, {})


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no such settings file"):
        read(tmp_path / "none.toml", {})


def test_domains_hold_the_default_one() -> None:
    assert Settings(domain="books", domains="shop, news").domain_names == ("books", "shop", "news")


def test_durations() -> None:
    assert [seconds_of(text) for text in ("90s", "15m", "1.5h", "1d")] == [90, 900, 5400, 86400]
    with pytest.raises(SettingsError, match="such as 15m"):
        seconds_of("soon")


def test_what_look_ups_have_by_default_may_differ_by_domain(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("diversity = 0.3\n[explore]\nnews = 0.05\n")
    found = read(file, {"COLDSTREAM_PER_CATEGORY": '{"shop": 2}', "COLDSTREAM_CATEGORIES": "3"})
    assert [found.of("explore", name) for name in ("news", "shop")] == [0.05, None]
    assert [found.of("per_category", name) for name in ("news", "shop")] == [None, 2]
    assert (found.of("diversity", "news"), found.of("categories", "news")) == (0.3, 3)
    assert read(None, {"COLDSTREAM_EXPLORE": "0.1"}).of("explore", "music") == 0.1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("explore = 0.9", "not between 0 and 0.5"),
        ("diversity = -1", "not between 0 and 1"),
        ("[per_category]\ngarden = 2", "'garden' is not one of"),
        ("[per_category]\nshop = 0", "not between 1"),
    ],
)
def test_what_look_ups_cannot_have_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=said):
        read(file, {})
