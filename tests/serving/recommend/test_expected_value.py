"""What events are expected to be worth: learned by a second head, shown with `explain`."""

from pathlib import Path

import pytest

from models.data.interactions import Interactions
from models.data.profiles import ANONYMOUS
from models.domains.preset import preset_of
from models.errors import PresetError
from models.recommenders.blend import BUCKETS, Blend
from models.recommenders.item_knn import ItemKNN
from models.recommenders.neural.recommender import Neural
from models.releases import release_store
from models.releases.manifest import Manifest, new_id
from models.releases.release import Release
from serving.recommend.request import LookupRequest
from testing.encoders import small_encoder
from testing.interactions import history, starred
from testing.lookups import NOW, SHOP, domain_state, look_up, serve, state_of


@pytest.fixture(scope="module", params=[1.0, 0.0])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A blend whose encoder learned stars as well as the next item, and one whose encoder did not."""
    root, item_knn = tmp_path_factory.mktemp("releases"), ItemKNN()
    encoder = small_encoder("dnn", 60 if request.param else 1, values=request.param)
    for model in (encoder, item_knn):
        model.fit(Interactions.from_frame(starred()))
    blend = Blend([encoder, item_knn], [[0.5, 0.5]] * BUCKETS)  # type: ignore[arg-type]

    def write(folder: Path) -> list[str]:
        return list({*blend.save(folder, release_store.prefix_of("blend")), *item_knn.save(folder)})

    whole = Manifest(new_id(), "shop", "blend", 0, 0, 0, 0, 0, {}, blend.describe(), {}, "none")
    return release_store.load(root / "shop" / release_store.save(root, whole, encoder.vocabulary.item_ids, write).id)


def learned(release: Release) -> bool:
    return bool(release.manifest.params["members"][0]["values"])


def test_an_explained_list_says_what_its_items_are_worth_where_that_was_learned(release: Release) -> None:
    state = domain_state(SHOP, clock=lambda: NOW)
    serve(state, release)
    activity = state_of(("rate", "i1"), ("rate", "i2"))
    values = {
        item.item_id: item.expected_value
        for item in look_up(state, activity, LookupRequest("shop", 12, explain=True)).items
    }
    assert len(values) == 12
    if not learned(release):
        assert set(values.values()) == {None}
        return
    stars = {item_id: value for item_id, value in values.items() if item_id != "i0"}  # which nobody rated
    expected = {item_id: 1.0 if int(item_id[1:]) % 2 else 5.0 for item_id in stars}
    assert stars == pytest.approx(expected, abs=1.0)
    assert {item.expected_value for item in look_up(state, activity, LookupRequest("shop", 12)).items} == {None}


def test_a_release_expects_what_its_network_does(release: Release) -> None:
    values = release.expected(history("i1", "i2"), ANONYMOUS, ["i3", "i4", "nothing"])
    assert set(values) == ({"i3", "i4"} if learned(release) else set())


def test_a_preset_switches_the_head_on(tmp_path: Path) -> None:
    file = tmp_path / "video.toml"
    file.write_text('[training]\nencoder = "rnn"\nvalues = 0.5\n')
    params = preset_of("video", file).params()
    assert params == {"rnn": {"values": 0.5}}
    assert isinstance(small_encoder("rnn", **params["rnn"]), Neural)
    file.write_text("[training]\nvalues = -1.0\n")
    with pytest.raises(PresetError, match=r"training.values: -1.0 is no weight; give 0 \(no such head\) or more"):
        preset_of("video", file)
