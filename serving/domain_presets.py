"""Each domain's preset: the user's own file where the settings name one, else the shipped one."""

from pathlib import Path

from features.popularity import PopularitySettings
from models.domains import preset
from models.domains.preset import DomainPreset
from serving.settings import Settings


def preset_file(settings: Settings, name: str) -> Path | None:
    """Where the preset of a domain is read from; None where it has none.

    `[domains.NAME] preset = FILE` goes first, then NAME.toml in the folder `presets`, then what is shipped.
    """
    if isinstance(settings.domains, dict) and "preset" in settings.domains.get(name, {}):
        return Path(settings.domains[name]["preset"]).expanduser()
    if settings.presets is not None:
        file = Path(settings.presets).expanduser() / f"{name}.toml"
        if file.exists():
            return file
    return preset.shipped().get(name)


def preset_for(settings: Settings, name: str) -> DomainPreset:
    """The preset of a domain. Raises PresetError."""
    return preset.preset_of(name, preset_file(settings, name))


def popularity_settings(settings: Settings) -> dict[str, PopularitySettings]:
    """Popularity's rules by domain. Raises PresetError."""
    return {name: preset_for(settings, name).counting for name in settings.domain_names}
