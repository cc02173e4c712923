"""The jars of Kafka: what the lock names, whole and unchanged, or nothing."""

import re
from pathlib import Path

import pytest

from stream import jars
from stream.errors import BrokerError


@pytest.fixture(scope="module")
def installed() -> Path:
    """The jars as this machine has them; fetched where they are not there yet."""
    try:
        jars.install(jars.cache_folder())
    except BrokerError as error:
        pytest.skip(f"Kafka's jars are not installed: {error}")
    return jars.cache_folder()


@pytest.fixture
def copied(installed: Path, tmp_path: Path) -> Path:
    """A folder with every jar, to spoil."""
    for jar in jars.locked():
        (tmp_path / jar.file).symlink_to(installed / jar.file)
    return tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download fails at once: the proxy is a port that nothing listens on."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_the_lock_names_jars_versions_and_hashes_but_no_address() -> None:
    text = jars.LOCK.read_text("utf-8")
    named = {jar.artifact: jar for jar in jars.locked()}
    assert named["kafka_2.13"].version.startswith("4.")
    assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) for jar in named.values())
    assert "//" not in text
    assert len(named) == len([line for line in text.splitlines() if line and not line.startswith("#")])


def test_once_installed_no_network_is_needed(copied: Path, offline: None) -> None:
    seen: list[tuple[int, int]] = []
    paths = jars.install(copied, progress=lambda done, of: seen.append((done, of)))
    count = len(jars.locked())
    assert [path.parent for path in paths] == [copied] * count
    assert seen == [(number, count) for number in range(1, count + 1)]


def test_a_flipped_byte_is_refused_and_the_jar_named(copied: Path, offline: None) -> None:
    jar = next(copied.glob("kafka-clients-*.jar"))
    content = bytearray(jar.read_bytes())
    content[len(content) // 2] ^= 1
    jar.unlink()  # a link: the installed one must stay whole
    jar.write_bytes(content)
    with pytest.raises(BrokerError, match=rf"{jar.name}: SHA-256 [0-9a-f]+ is not the locked [0-9a-f]+; delete"):
        jars.install(copied)


def test_a_missing_jar_that_cannot_be_fetched_is_named_with_the_cure(copied: Path, offline: None) -> None:
    next(copied.glob("snakeyaml-*.jar")).unlink()
    with pytest.raises(BrokerError, match=r"snakeyaml-.*jar cannot be fetched.*check the network.*or copy the jar"):
        jars.install(copied)
    assert not list(copied.glob(".fetched-*"))
    assert not list(copied.glob("snakeyaml-*"))


def test_a_fetched_jar_that_is_not_the_locked_one_is_not_kept(tmp_path: Path, installed: Path) -> None:
    jar = next(jar for jar in jars.locked() if jar.artifact == "jspecify")  # the smallest: 4 kB
    lock = tmp_path / "jars.lock"
    lock.write_text(f"{jar.group}:{jar.artifact}:{jar.version} {'0' * 64}\n", "utf-8")
    with pytest.raises(BrokerError, match=r"jspecify-1\.0\.0\.jar (as fetched|cannot be fetched)") as refused:
        jars.install(tmp_path / "jars", lock)
    if "cannot be fetched" in str(refused.value):
        pytest.skip("no network to fetch a jar over")
    assert jar.sha256 in str(refused.value)
    assert list((tmp_path / "jars").iterdir()) == []
