"""Presets of domains: where the settings find them, and what the commands print."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from features.popularity import PopularitySettings
from models.domains.preset import shipped
from models.errors import PresetError
from serving.cli import app
from serving.commands.system_checks import check_presets
from serving.domain_presets import popularity_settings, preset_file, preset_for
from serving.process.environment import part_environment
from serving.process.supervisor import MODULES
from serving.settings import EXIT_MISCONFIGURED, Settings, SettingsError, read
from testing.ports import free_port

DAY_MS = 24 * 60 * 60 * 1000
WITH_THE_CLOCK = PopularitySettings(live_ms=(DAY_MS, 30 * DAY_MS))
"""What a shop counts, and a domain without a preset: its blend has popularity at the moment of the request."""
MINE = '[seen]\npolicy = "mask"\n[popularity]\nhalf_life = "1d"\n'


def invoked(file: Path, *words: str) -> str:
    result = CliRunner().invoke(app, ["--settings", str(file), *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_domains_own_file_goes_before_the_folder_and_the_folder_before_what_is_shipped(tmp_path: Path) -> None:
    folder = tmp_path / "presets"
    folder.mkdir()
    for file in (tmp_path / "mine.toml", folder / "shop.toml", folder / "music.toml"):
        file.write_text(MINE)
    file = tmp_path / "coldstream.toml"
    file.write_text(f'presets = "{folder}"\n[domains.shop]\npreset = "{tmp_path / "mine.toml"}"\n[domains.books]\n')
    settings = read(file, {})
    assert settings.domain_names == ("shop", "music", "video", "news", "books")
    files = {name: preset_file(settings, name) for name in settings.domain_names}
    assert files == {
        "shop": tmp_path / "mine.toml",
        "music": folder / "music.toml",
        "video": shipped()["video"],
        "news": shipped()["news"],
        "books": None,
    }
    rules = popularity_settings(settings)
    assert rules["shop"].half_life_ms == DAY_MS
    assert rules["books"] == WITH_THE_CLOCK
    assert read(None, part_environment(settings)) == settings  # what `up` hands to its parts


def test_without_a_word_the_shipped_ones_are_in_force() -> None:
    assert popularity_settings(Settings())["shop"] == WITH_THE_CLOCK
    assert preset_for(Settings(), "news").freshness is not None


def test_what_is_no_setting_of_a_domain_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "coldstream.toml"
    file.write_text('[domains.shop]\nencoder = "rnn"\n')
    with pytest.raises(SettingsError, match=r"domains\.shop\.encoder does not exist; a domain has one setting: preset"):
        read(file, {})


def test_presets_are_listed_and_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINE)
    file = tmp_path / "coldstream.toml"
    file.write_text(f'[domains.shop]\npreset = "{tmp_path / "mine.toml"}"\n')
    rows = {row["domain"]: row for row in json.loads(invoked(file, "presets", "list", "--json"))}
    assert (rows["shop"]["seen"], rows["shop"]["file"]) == ("mask", str(tmp_path / "mine.toml"))
    assert (rows["music"]["seen"], rows["music"]["encoder"], rows["music"]["file"]) == ("within 2h", "cnn", "shipped")
    assert "video    mask" in invoked(file, "presets", "list")
    assert invoked(file, "presets", "show", "shop").strip() == MINE.strip()
    assert invoked(file, "presets", "show", "news").strip() == shipped()["news"].read_text().strip()
    whole = json.loads(invoked(file, "presets", "show", "shop", "--json"))
    assert whole["training"]["half_life"] == "28d"


def test_a_bad_preset_is_one_line_with_file_and_field(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[seen]\npolicy = 'forget'\n")
    settings = Settings(domains={"shop": {"preset": str(tmp_path / "mine.toml")}})
    with pytest.raises(PresetError, match=r"mine\.toml: seen\.policy: Invalid enum value 'forget'"):
        popularity_settings(settings)
    (finding,) = check_presets(settings)
    assert (finding.state, "mine.toml: seen.policy" in finding.detail) == ("fail", True)
    (finding,) = check_presets(Settings())
    assert (finding.state, "news (shipped)" in finding.detail) == ("ok", True)


@pytest.mark.parametrize("part", ["api", "consumer"])
def test_a_part_with_a_bad_preset_ends_and_is_not_started_again(part: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[seen]\npolicy = 'forget'\n")
    domains = json.dumps({"shop": {"preset": str(tmp_path / "mine.toml")}})
    state = {
        "COLDSTREAM_STATE": str(tmp_path / "state"),
        "COLDSTREAM_PORT": str(free_port()),
        "COLDSTREAM_CONSUMER_METRICS_PORT": str(free_port()),
    }
    command = [sys.executable, "-m", MODULES[part]]
    ended = subprocess.run(  # noqa: PLW1510 - the code is what is looked at
        command, env={**os.environ, **state, "COLDSTREAM_DOMAINS": domains}, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == EXIT_MISCONFIGURED, ended.stderr
    assert "mine.toml: seen.policy: Invalid enum value" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
