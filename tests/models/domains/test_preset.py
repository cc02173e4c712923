"""A domain's preset: what is shipped, what a file may say, and how it says no."""

from pathlib import Path

import pytest

from features.popularity import PopularitySettings
from models.data.vocabulary import PREFERENCE_WEIGHTS
from models.domains import preset as domain
from models.domains import tuning
from models.domains.preset import DomainPreset, SeenPolicy, TunedParams
from models.errors import PresetError
from models.recommenders.base import TuningContext
from models.recommenders.registry import REGISTRY, create
from stream.events import KIND_CODES

HOUR = 60 * 60 * 1000
DAY = 24 * HOUR


def test_the_package_ships_four_presets() -> None:
    presets = {name: domain.read_preset(path) for name, path in domain.shipped().items()}
    assert list(presets) == ["music", "news", "shop", "video"]
    assert {name: preset.seen for name, preset in presets.items()} == {
        "shop": SeenPolicy("keep"),
        "music": SeenPolicy("within", "2h"),
        "video": SeenPolicy("mask"),
        "news": SeenPolicy("mask"),
    }
    assert {name: preset.training.encoder for name, preset in presets.items()} == {
        "shop": "dnn",
        "music": "cnn",
        "video": "rnn",
        "news": "transformer",
    }
    assert {name: preset.seen_ms for name, preset in presets.items()} == {
        "shop": 0,
        "music": 2 * HOUR,
        "video": None,
        "news": None,
    }


def test_the_shop_preset_counts_popularity_like_the_defaults() -> None:
    """Features of a shop must not move because it has a preset now."""
    shop = domain.preset_of("shop")
    assert shop.counting == domain.DomainPreset().counting
    assert shop.counting == PopularitySettings(live_ms=(DAY, 30 * DAY))  # the week's counts are there already
    assert shop.kinds == dict(PREFERENCE_WEIGHTS)
    assert domain.preset_of("garden") == DomainPreset()


@pytest.mark.parametrize("name", ["shop", "music", "video", "news"])
def test_shipped_presets_are_tuned_and_valid(name: str) -> None:
    preset = domain.preset_of(name)
    assert preset.training.encoder in preset.training.members
    assert len(preset.recommenders) >= 3
    for tuned, params in preset.recommenders.items():
        assert tuned in REGISTRY
        assert params.study.startswith(f"{tuned}-")
        assert params.ndcg > 0
        assert params.trials > 0
        assert params.source
        assert params.protocol
        if tuned not in {"dnn", "cnn", "rnn", "transformer"}:  # Keras takes seconds to import
            assert create(tuned, params.params, TuningContext()).name == tuned


def test_a_preset_file_overrides_only_its_own_fields(tmp_path: Path) -> None:
    file = tmp_path / "books.toml"
    file.write_text('[kinds]\nrate = 2.0\n[seen]\npolicy = "within"\nwithin = "30d"\n[popularity]\nhalf_life = "90m"\n')
    preset = domain.read_preset(file)
    assert preset.weights[KIND_CODES["rate"]] == 2.0
    assert preset.weights[KIND_CODES["view"]] == 0.0
    assert (preset.seen_ms, preset.mask_seen) == (30 * 24 * HOUR, False)
    assert preset.counting.half_life_ms == 90 * 60_000
    assert preset.counting.least > 0  # minutes: what nobody takes any more is let go
    assert preset.training == DomainPreset().training


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[kinds", "not TOML"),
        ("[kinds]\nview = 'much'", "kinds.*Expected `float`, got `str`"),
        ("[kinds]\nstare = 1.0", "kinds.stare: there is no such kind; there are view, click"),
        ("[kinds]\nview = -1.0", "kinds.view: -1.0 is no weight; give 0 or more"),
        ("[kinds]\nview = 0.0", "kinds: no kind counts in favor of an item"),
        ("[seen]\npolicy = 'forget'", "seen.policy: Invalid enum value 'forget'"),
        ("[seen]\npolicy = 'within'", "seen.within: '0s' is too short"),
        ("[popularity]\nhalf_life = 'a week'", "popularity.half_life: 'a week' is no duration; give a number and"),
        ("[popularity.kinds]\nstare = 1.0", "popularity.kinds.stare: there is no such kind"),
        ("[training]\nencoder = 'lstm'", "training.encoder: no encoder is called 'lstm'; there are dnn, cnn"),
        ("[training]\nmembers = ['item-knn', 'fresh']", "training.members: fresh is for evaluations; there are"),
        ("[training]\nmembers = ['item-knn', 'magic']", "training.members: no recommender is called 'magic'"),
        ("[training]\nmembers = []", "training.members: a blend has at least one member"),
        ("[filters]\nunwanted = ['boredom']", "filters.unwanted.boredom: there is no such kind"),
        ("[freshness]\nhalf_life = '6h'\nlive = 1.5", "freshness.live: 1.5 is no share"),
        ("[freshness]\nlive = 0.5", "freshness: Object missing required field `half_life`"),
        ("half_life = '6h'", "unknown field `half_life`"),
        ("[recommenders.sasrec.params]", "no recommender is called 'sasrec'"),
    ],
)
def test_errors_name_the_file_the_field_and_the_fix(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(PresetError, match=rf"preset .*bad.toml: .*{message}"):
        domain.read_preset(file)
    with pytest.raises(PresetError, match="coldstream presets show shop"):
        domain.read_preset(tmp_path / "none.toml")


def test_tuning_updates_a_preset_file_and_keeps_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '# mine\n[seen]\npolicy = "keep" # why not\n\n'
        "[recommenders.ease]\nndcg = 0.1\n[recommenders.ease.params]\nreg = 9.0\n"
    )
    tuning.put(file, "item-knn", TunedParams({"neighbors": 80}, 0.2, 3, "item-knn-1"))
    assert file.read_text().startswith('# mine\n[seen]\npolicy = "keep" # why not\n')
    preset = domain.read_preset(file)
    assert preset.params() == {"ease": {"reg": 9.0}, "item-knn": {"neighbors": 80}}
    assert preset.seen.policy == "keep"


def test_the_loss_belongs_to_the_encoder(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[training]\nencoder = "rnn"\nloss = "softmax"\n[recommenders.rnn.params]\nblocks = 1\n')
    assert domain.read_preset(file).params() == {"rnn": {"blocks": 1, "loss": "softmax"}}
