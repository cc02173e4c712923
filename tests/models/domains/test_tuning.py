"""Presets: what is written is read, and nothing else."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from models.domains import tuning
from models.domains.preset import DomainPreset, TunedParams, read_preset
from models.errors import PresetError


def test_written_parameters_are_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "shop.toml"
    first = TunedParams({"half_life_ms": None, "decay": 0.5}, 0.1, 12, "popularity-1", 'a "shop"', "leave-one-out")
    tuning.put(file, "personal", first)
    second = TunedParams({"neighbors": 80, "alpha": 1e-7}, 0.2)
    assert (
        tuning.put(file, "item-knn", second)
        == read_preset(file)
        == DomainPreset(recommenders={"personal": first, "item-knn": second})
    )
    assert tuning.put(file, "personal", TunedParams({"decay": 0.9})).tuned_params["personal"] == {"decay": 0.9}
    assert sorted(path.name for path in file.parent.iterdir()) == [".shop.toml.lock", "shop.toml"]


def test_other_contents_of_the_file_stay(tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    ease = "[recommenders.ease]\nndcg = 0.1 # by hand\n[recommenders.ease.params]\nmost = 4000 # its cube\n"
    file.write_text(f'# mine\n[seen]\npolicy = "keep"\n\n{ease}\n[filters] # behind\nunwanted = []\n')
    tuning.put(file, "dnn", TunedParams({"blocks": 1}, 0.2))
    tuning.put(file, "personal", TunedParams({"decay": 0.9}, 0.3))
    once = file.read_text()
    assert all(text in once for text in (ease, "# mine", "[filters] # behind\nunwanted = []"))
    assert once.index("recommenders.dnn") < once.index("recommenders.ease") < once.index("recommenders.personal")
    tuning.put(file, "personal", TunedParams({"decay": 0.9}, 0.3))
    assert file.read_text() == once
    preset = tomllib.loads(once)
    assert (preset["seen"], preset["filters"]) == ({"policy": "keep"}, {"unwanted": []})
    assert preset["recommenders"]["ease"] == {"ndcg": 0.1, "params": {"most": 4000}}


def test_several_processes_write_to_the_same_file(tmp_path: Path) -> None:
    file, names = tmp_path / "shop.toml", ["ease", "dnn", "personal", "item-knn"]
    script = "import sys; from pathlib import Path; from models.domains.tuning import put\n"
    script += "from models.domains.preset import TunedParams\n"
    script += "for n in range(50): put(Path(sys.argv[1]), sys.argv[2], TunedParams({'n': n}))"
    processes = [subprocess.Popen([sys.executable, "-c", script, str(file), name]) for name in names]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert read_preset(file).tuned_params == {name: {"n": 49} for name in names}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".shop.toml.lock", "shop.toml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recommenders = 3", "Expected `object`"),
        ("[recommenders.sasrec.params]", "no recommender is called 'sasrec'; there are popularity"),
        ("[recommenders", "preset "),
    ],
)
def test_an_invalid_preset_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "preset.toml"
    file.write_text(text)
    with pytest.raises(PresetError, match=message):
        read_preset(file)
    with pytest.raises(PresetError, match="`coldstream tune --preset FILE` writes a tuned one"):
        read_preset(tmp_path / "none.toml")
