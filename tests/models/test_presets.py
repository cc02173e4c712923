"""Presets: what is written is read, and nothing else."""

from pathlib import Path

import pytest

from models import presets
from models.presets import Preset, PresetError, Tuning


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "new" / "shop.toml"
    first = Tuning({"half_life_ms": None, "decay": 0.5}, 0.1, 12, "popularity-1", 'a "shop"', "leave-one-out")
    presets.put(file, "personal", first)
    second = Tuning({"neighbours": 80, "alpha": 1e-7}, 0.2)
    assert (
        presets.put(file, "item-knn", second) == presets.read(file) == Preset({"personal": first, "item-knn": second})
    )
    assert presets.put(file, "personal", Tuning({"decay": 0.9})).params()["personal"] == {"decay": 0.9}
    assert [path.name for path in file.parent.iterdir()] == ["shop.toml"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recommenders = 3", "Expected `object`"),
        ("[recommenders.sasrec.params]", "no recommender is called 'sasrec'; there are popularity"),
        ("[recommenders", "preset "),
    ],
)
def test_what_is_no_preset_is_said_to_be_none(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "preset.toml"
    file.write_text(text)
    with pytest.raises(PresetError, match=said):
        presets.read(file)
    with pytest.raises(PresetError, match="coldstream tune --preset FILE writes one"):
        presets.read(tmp_path / "none.toml")
