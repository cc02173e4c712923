"""What every encoder has to do beyond what every recommender does: new items, values, the cut in time, any loss."""

from pathlib import Path

import numpy as np
import pytest

from models.arrays import Float32
from models.data.batch import batch_histories
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.profiles import RequestContext
from models.recommenders.neural.recommender import Neural
from models.recommenders.registry import neural_names
from models.releases.release import Release
from testing.encoders import fit_on_tastes, save_and_load, small_encoder
from testing.interactions import MONDAY, OLD, RING, SATURDAY, STRANGE, YOUNG, clubs, history, ring, starred, tastes


def scores_of(model: Neural, *histories: tuple[str, ...]) -> Float32:
    return model.score(batch_histories([history(*items) for items in histories], model.vocabulary, 50))


def starts(steps: int = 4) -> list[tuple[str, ...]]:
    return [tuple(f"i{(start + step) % RING}" for step in range(steps)) for start in range(RING)]


def follows(model: Neural) -> float:
    """The share of places on the ring whose next item is ranked first."""
    followers = [model.vocabulary.index[f"i{(start + 4) % RING}"] for start in range(RING)]
    return float((scores_of(model, *starts()).argmax(axis=1) == followers).mean())


def two_clubs(text: bool) -> ItemFeatures:
    """Items 0 to 5 and `left` are of one kind, 6 to 11 and `right` of another."""
    items = [f"i{n}" for n in range(12)] + ["left", "right"]
    ours = [n < 6 or n == 12 for n in range(14)]
    if text:
        return ItemFeatures(items, {}, np.array([[float(left), float(not left)] for left in ours], np.float32))
    return ItemFeatures(items, {item: "left" if left else "right" for item, left in zip(items, ours, strict=True)})


@pytest.mark.parametrize(("name", "text"), [*((name, False) for name in neural_names()), ("dnn", True)])
def test_an_item_that_nobody_took_is_reached_through_what_is_known_of_it(name: str, text: bool, tmp_path: Path) -> None:
    model = small_encoder(name, 20)
    model.fit(Interactions.from_frame(clubs(), item_features=two_clubs(text)))
    left, right = model.vocabulary.index["left"], model.vocabulary.index["right"]
    assert {left, right} == {12, 13}
    histories = [("i0", "i1", "i2"), ("i9", "i7", "i10"), ("left",), ("right",)]
    tables = [scores_of(model, *histories)]
    if text:
        tables.append(save_and_load(model, tmp_path).scores([history(*items) for items in histories]))
    for scores in tables:
        assert scores[0, left] > scores[0, right]
        assert scores[1, right] > scores[1, left]
        ours, theirs = ([model.vocabulary.index[f"i{n}"] for n in part] for part in (range(6), range(6, 12)))
        assert scores[2, ours].mean() > scores[2, theirs].mean()  # and as a history it says what its kind says
        assert scores[3, theirs].mean() > scores[3, ours].mean()


@pytest.mark.parametrize("more", [{"values": 1.0}, {"loss": "mse"}])
def test_values_are_learned_in_their_own_unit(more: dict[str, object], tmp_path: Path) -> None:
    model = small_encoder("transformer", 60, **more)
    model.fit(Interactions.from_frame(starred()))
    histories = [history("i1", "i2"), history("i5", "i8", "i3")]
    values = model.values(batch_histories(histories, model.vocabulary, 50))
    stars = [model.vocabulary.index[f"i{n}"] for n in range(1, RING)]
    expected = np.array([1.0 if n % 2 else 5.0 for n in range(1, RING)])
    np.testing.assert_allclose(values[:, stars], np.tile(expected, (2, 1)), atol=0.7)
    served = save_and_load(model, tmp_path).recommender
    np.testing.assert_allclose(served.values(batch_histories(histories, model.vocabulary, 50)), values, atol=1e-3)  # type: ignore[attr-defined]
    np.testing.assert_allclose(
        served.score(batch_histories(histories, model.vocabulary, 50)),
        model.score(batch_histories(histories, model.vocabulary, 50)),
        atol=1e-3,
    )


def untrained(name: str, **more: object) -> Neural:
    """Nobody has a second event, so nothing is learned: the encoder stays as it began."""
    model = small_encoder(name, **more)
    once = ring(users=RING, steps=1)
    model.fit(Interactions.from_frame(once[once["user_id"] != "x"]))
    return model


def test_values_that_were_not_learned_are_refused() -> None:
    model = untrained("dnn")
    with pytest.raises(ValueError, match="learned no values"):
        model.values(batch_histories([history("i1")], model.vocabulary, 8))


@pytest.mark.parametrize("name", neural_names())
def test_what_comes_later_changes_nothing_before_it(name: str) -> None:
    """Of two histories that share their beginning, every place of the beginning is encoded alike."""
    model = untrained(name)
    assert model.network is not None
    first_batch = batch_histories([history(*[f"i{n}" for n in (0, 1, 2, 3, 4, 5, 6, 7)])], model.vocabulary, 8)
    second_batch = batch_histories([history(*[f"i{n}" for n in (0, 1, 2, 3, 9, 9, 1, 11)])], model.vocabulary, 8)
    first, second = (
        np.asarray(model.network({"items": part.items, "kinds": part.kinds, "gaps": part.gaps}))
        for part in (first_batch, second_batch)
    )
    np.testing.assert_allclose(first[0, :4], second[0, :4], atol=1e-5)
    assert np.abs(first[0, 4:] - second[0, 4:]).max() > 1e-3


def test_the_same_seed_gives_the_same_encoder_however_many_workers() -> None:
    models = [
        small_encoder("dnn", 2, dropout=0.2, mask=0.1, crop=0.5, reorder=0.5, workers=workers) for workers in (0, 2)
    ]
    for model in models:
        model.fit(Interactions.from_frame(ring()))
    np.testing.assert_allclose(scores_of(models[0], *starts()), scores_of(models[1], *starts()), atol=1e-4)


@pytest.mark.parametrize(
    ("more", "epochs"),
    [
        ({"loss": "sampled", "negatives": 16, "repeats": True, "adversarial": 1.0, "epsilon": 0.2}, 40),
        ({"loss": "gbce", "negatives": 16, "repeats": True}, 120),
        ({"mixed": True, "l2": 1e-3}, 60),
        ({"adversarial": 1.0, "epsilon": 0.2, "smoothing": 0.1, "compiled": True}, 60),
        ({"crop": 0.3, "mask": 0.1, "reorder": 0.2, "schedule": "cosine"}, 60),
    ],
    ids=str,
)
def test_each_objective_and_switch_teaches_what_comes_next(more: dict[str, object], epochs: int) -> None:
    model = small_encoder("dnn", epochs, **more)
    model.fit(Interactions.from_frame(ring()))
    assert follows(model) == 1.0


def test_similar_items_stand_in_for_each_other() -> None:
    model = small_encoder("dnn", 60, substitute=0.3)
    model.fit(Interactions.from_frame(clubs()))
    scores = scores_of(model, ("i0", "i1", "i2"))
    near, far = ([model.vocabulary.index[f"i{n}"] for n in part] for part in ((3, 4, 5), range(6, 12)))
    assert scores[0, near].min() > scores[0, far].max()


def after_tea(model: Neural | Release, *contexts: RequestContext) -> Float32:
    """How much further `a` is ranked than `b` after `tea`, for each who asks."""
    histories = [history("tea")] * len(contexts)
    if isinstance(model, Neural):
        scores = model.score(batch_histories(histories, model.vocabulary, 50, contexts))
    else:
        scores = model.scores(histories, contexts)
    assert np.isfinite(scores).all()
    index = model.vocabulary.index
    ahead: Float32 = scores[:, index["a"]] - scores[:, index["b"]]
    return ahead


def test_a_profile_changes_what_is_said_and_nobody_needs_one(tmp_path: Path) -> None:
    model = fit_on_tastes("profile", profile=True)
    contexts = [
        RequestContext(YOUNG),
        RequestContext(OLD),
        RequestContext(),
        RequestContext(STRANGE),
        RequestContext({"shoe": 44}),
    ]
    young, old, *others = after_tea(model, *contexts)
    assert young > 1
    assert old < -1
    assert max(abs(difference) for difference in others) < min(young, -old) / 2  # both groups have to be satisfied
    np.testing.assert_allclose(others, others[0], atol=1e-5)  # what is not known says nothing
    np.testing.assert_allclose(
        after_tea(model, RequestContext(YOUNG, SATURDAY)), [young], atol=1e-5
    )  # no context is read
    served = save_and_load(model, tmp_path)
    assert served.reads_profiles
    np.testing.assert_allclose(after_tea(served, *contexts), [young, old, *others], atol=1e-4)
    np.testing.assert_allclose(
        served.scores([history("tea")]), served.scores([history("tea")], [RequestContext()]), atol=1e-6
    )


def test_the_moment_changes_what_is_said(tmp_path: Path) -> None:
    model = fit_on_tastes("moment", context=True)
    contexts = [RequestContext(at=MONDAY + 30_000), RequestContext(at=SATURDAY + 30_000), RequestContext()]
    monday, saturday, unknown = after_tea(model, *contexts)
    assert monday > 1
    assert saturday < -1
    served = save_and_load(model, tmp_path)
    assert not served.reads_profiles
    np.testing.assert_allclose(after_tea(served, *contexts), [monday, saturday, unknown], atol=1e-4)


def test_both_are_served_as_they_were_learned_with_any_history(tmp_path: Path) -> None:
    model = fit_on_tastes("profile", profile=True, context=True, mixed=True)
    histories = [history("tea"), history(*["tea", "a", "b"] * 5), history(), history("tea", "b")]
    contexts = [
        RequestContext(YOUNG, MONDAY),
        RequestContext(OLD, SATURDAY),
        RequestContext(OLD, MONDAY),
        RequestContext(None, MONDAY),
    ]
    expected = model.score(batch_histories(histories, model.vocabulary, 50, contexts))
    folded = save_and_load(model, tmp_path).scores(histories, contexts)
    np.testing.assert_allclose(folded, expected, atol=0.1)  # half precision in training, whole in serving
    np.testing.assert_allclose(folded[2], np.log1p(model.popularity), atol=1e-6)  # nothing was taken: what is popular


def test_without_profiles_or_switches_nothing_more_is_read(tmp_path: Path) -> None:
    frame, people = tastes("profile")
    off = small_encoder("dnn", 0)  # no epoch: an attribute that is read says something from the beginning
    off.fit(Interactions.from_frame(frame, profiles=people))
    bare = small_encoder("dnn", 0, profile=True)
    bare.fit(Interactions.from_frame(frame))
    other = small_encoder("transformer", 0, profile=True, context=True)  # the dense encoder alone reads them
    other.fit(Interactions.from_frame(frame, profiles=people))
    for number, model in enumerate((off, bare, other)):
        served = save_and_load(model, tmp_path / str(number))
        assert {port.name for port in served.recommender.encoder.get_inputs()} <= {"items", "kinds", "gaps"}  # type: ignore[attr-defined]
        assert "fields" not in served.manifest.params
        young, old = after_tea(served, RequestContext(YOUNG, MONDAY), RequestContext(OLD, SATURDAY))
        assert young == pytest.approx(old, abs=1e-6)
