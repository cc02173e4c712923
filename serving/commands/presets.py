"""`coldstream presets`: what each domain's preset says, and where it is from."""

from typing import Any

import msgspec

from models.domains.preset import shipped
from serving.domain_presets import preset_file, preset_for
from serving.settings import Settings
from stream.errors import ColdstreamError

NONE = "no preset: what is right for most"


def listed(settings: Settings) -> list[dict[str, Any]]:
    """A row for each domain of the settings. Raises PresetError."""
    rows = []
    for name in settings.domain_names:
        preset, file = preset_for(settings, name), preset_file(settings, name)
        seen = preset.seen.policy + (f" {preset.seen.within}" if preset.seen.policy == "within" else "")
        where = "shipped" if file is not None and file == shipped().get(name) else str(file or NONE)
        rows.append(
            {
                "domain": name,
                "seen": seen,
                "half life": preset.popularity.half_life,
                "encoder": preset.training.encoder,
                "members": preset.training.members,
                "tuned": sorted(preset.recommenders),
                "file": where,
            }
        )
    return rows


def shown(settings: Settings, name: str, as_json: bool) -> str:
    """A preset's text as its file has it, or all that is in force as JSON.

    Raises:
        ColdstreamError: there is no preset of that name.
        PresetError: its file cannot be used.
    """
    preset, file = preset_for(settings, name), preset_file(settings, name)
    if as_json:
        return msgspec.json.encode(preset).decode()
    if file is None:
        known = ", ".join(shipped())
        raise ColdstreamError(f"{name} has no preset; those that come with the package are {known}")
    return file.read_text("utf-8").rstrip()
