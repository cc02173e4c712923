"""What every synthesizer has to do.

A test module of a synthesizer is a subclass that names it:

    class TestMarkov(SynthesizerContract):
        name = "markov"

Each condition that it supports is tested on data in which that condition decides what comes next.
"""

from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pandas as pd
import pytest

from features.activity import History
from features.catalogue import CatalogueEntry
from models.arrays import Float32
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.synthesizers import registry
from models.synthesizers.base import SamplingOptions, Synthesizer, SynthesizerContext
from models.synthesizers.conditions import ANYTHING, CONDITION_NAMES, ConditionName, Conditions, SynthesisError
from models.synthesizers.decoding import Decoding, DrawingState, ItemConstraint
from models.synthesizers.histories import Histories
from testing.interactions import RING, clubs, history, ring, tastes

SEED = 5
START = 1_700_000_000_000
"""Epoch ms at which the users of the suite begin."""


def known(*items: str) -> History:
    """Known events of a user, a second apart, within the time of the suite's users."""
    events = history(*items)
    events.times = [START + 5_000 + at for at in events.times]
    return events


EXAMPLES: dict[ConditionName, Conditions] = {
    "first": Conditions(first=known("i1", "i2")),
    "later": Conditions(later=known("i8", "i9")),
    "profile": Conditions(profile={"group": "young"}),
    "context": Conditions(at=1_759_708_800_000, context={"device": "phone"}),
    "elsewhere": Conditions(elsewhere=known("i3")),
    "category": Conditions(category="left"),
    "text": Conditions(text="left"),
}


class SynthesizerContract:
    """The suite that every synthesizer passes. What it cannot know is said by the class attributes."""

    name: ClassVar[str]
    params: ClassVar[dict[str, Any]] = {}
    knows_order: ClassVar[bool] = True
    """Whether it learns which item follows which."""
    knows_neighbors: ClassVar[bool] = True
    """Whether it learns which items are taken together."""
    copies_users: ClassVar[bool] = False
    """Whether it returns real users' sequences by nature: then the planted one has to be found."""

    def build(self, seed: int = 0) -> Synthesizer:
        return registry.create(self.name, self.params, SynthesizerContext(seed=seed))

    @pytest.fixture(scope="class")
    def fitted(self) -> Synthesizer:
        """Fitted on users who go round a ring."""
        return self._fitted(Interactions.from_frame(started(ring())))

    @pytest.fixture(scope="class")
    def conditions(self, fitted: Synthesizer) -> list[Conditions]:
        """No condition, and each that the synthesizer supports."""
        return [ANYTHING, *(EXAMPLES[name] for name in CONDITION_NAMES if name in fitted.supports)]

    def _fitted(self, interactions: Interactions) -> Synthesizer:
        synthesizer = self.build()
        synthesizer.fit(interactions)
        return synthesizer

    def test_one_seed_gives_the_same_histories(self, fitted: Synthesizer, conditions: list[Conditions]) -> None:
        first, again, other = (sample(fitted, conditions, 5, seed) for seed in (1, 1, 2))
        assert_same(first, again)
        assert len(first.items) != len(other.items) or (first.items != other.items).any()

    def test_two_fits_with_one_seed_are_the_same(self, fitted: Synthesizer, conditions: list[Conditions]) -> None:
        again = self._fitted(Interactions.from_frame(started(ring())))
        assert_same(sample(fitted, conditions, 5), sample(again, conditions, 5))

    def test_a_condition_alone_gives_what_it_gives_in_a_batch(
        self, fitted: Synthesizer, conditions: list[Conditions]
    ) -> None:
        batch = sample(fitted, conditions, 4)
        for number, condition in enumerate(conditions):
            assert_same(sample(fitted, [condition], 4), batch.take(np.arange(4 * number, 4 * number + 4)))

    def test_equal_conditions_give_different_histories(self, fitted: Synthesizer) -> None:
        histories = sample(fitted, [Conditions(events=8)] * 6, 1)
        sequences = {tuple(histories.items[8 * row : 8 * row + 8]) for row in range(6)}
        assert len(sequences) > 1

    def test_events_are_valid(self, fitted: Synthesizer, conditions: list[Conditions]) -> None:
        histories = sample(fitted, conditions, 20)
        assert len(histories) == 20 * len(conditions)
        assert (histories.lengths >= 1).all()
        assert (histories.items >= 0).all()
        assert (histories.items < len(fitted.vocabulary)).all()
        assert (histories.at > 0).all()
        same_user = np.diff(histories.users) == 0
        assert (np.diff(histories.at)[same_user] >= 0).all()
        assert (np.diff(histories.sessions)[same_user] >= 0).all()
        assert set(histories.frame(fitted.vocabulary)["kind"]) == {"view"}

    def test_the_number_of_events_is_what_the_condition_says(self, fitted: Synthesizer) -> None:
        histories = sample(fitted, [Conditions(events=events) for events in (1, 3, 7)], 4)
        assert histories.lengths.tolist() == [1] * 4 + [3] * 4 + [7] * 4

    def test_lengths_are_those_of_users(self, fitted: Synthesizer) -> None:
        lengths = sample(fitted, [ANYTHING], 200).lengths
        assert 15 <= np.median(lengths) <= 25  # 60 users have 20 events, one has 5

    def test_generated_events_follow_the_first_and_precede_the_later_ones(self, fitted: Synthesizer) -> None:
        begin, end = known("i1", "i2"), known("i9")
        end.times = [begin.times[-1] + 5_000]
        if "first" in fitted.supports:
            assert (sample(fitted, [Conditions(first=begin)], 10).at >= begin.times[-1]).all()
        if "later" in fitted.supports:
            assert (sample(fitted, [Conditions(later=begin)], 10).at <= begin.times[0]).all()
        if {"first", "later"} <= fitted.supports:
            between = sample(fitted, [Conditions(first=begin, later=end, events=4)], 10).at
            assert ((between >= begin.times[-1]) & (between <= end.times[0])).all()

    def test_the_next_item_follows_the_known_ones(self, fitted: Synthesizer) -> None:
        if not self.knows_order or "first" not in fitted.supports:
            pytest.skip("it does not learn order after known events")
        conditions = [Conditions(first=history(f"i{n - 1}", f"i{n}")) for n in range(1, 6)]
        expected = fitted.expected(conditions)
        following = [fitted.vocabulary.index[f"i{n + 1}"] for n in range(1, 6)]
        assert expected.argmax(axis=1).tolist() == following
        np.testing.assert_allclose(expected.sum(axis=1), 1.0, atol=1e-3)
        drawn = sample(fitted, [with_events(condition, 1) for condition in conditions], 40).items.reshape(5, 40)
        assert (drawn == np.array(following)[:, None]).mean() > 0.5

    def test_the_item_before_precedes_the_known_ones(self, fitted: Synthesizer) -> None:
        if not self.knows_order or "later" not in fitted.supports:
            pytest.skip("it does not learn order before known events")
        conditions = [Conditions(later=history(f"i{n}", f"i{n + 1}")) for n in range(4, 9)]
        before = [fitted.vocabulary.index[f"i{n - 1}"] for n in range(4, 9)]
        assert fitted.expected(conditions, -1).argmax(axis=1).tolist() == before
        drawn = sample(fitted, [with_events(condition, 1) for condition in conditions], 40).items.reshape(5, 40)
        assert (drawn == np.array(before)[:, None]).mean() > 0.5

    def test_two_steps_ahead_lies_the_item_after_the_next(self, fitted: Synthesizer) -> None:
        if not self.knows_order or "first" not in fitted.supports:
            pytest.skip("it does not learn order after known events")
        expected = fitted.expected([Conditions(first=known("i3", "i4"))], 2)
        assert expected.argmax() == fitted.vocabulary.index["i6"]

    def test_expectations_agree_with_samples(self, fitted: Synthesizer, conditions: list[Conditions]) -> None:
        for condition in conditions:
            steps = -1 if condition.later.items else 1
            drawn = sample(fitted, [with_events(condition, 1)], 2_000).items
            shares = np.bincount(drawn, minlength=len(fitted.vocabulary)) / len(drawn)
            distance = 0.5 * np.abs(shares - fitted.expected([condition], steps)[0]).sum()
            assert distance < 0.12, (condition, distance)

    def test_a_club_keeps_to_itself(self) -> None:
        synthesizer = self._fitted(Interactions.from_frame(started(clubs())))
        if not self.knows_neighbors or "first" not in synthesizer.supports:
            pytest.skip("it does not learn what belongs together")
        drawn = sample(synthesizer, [Conditions(first=known("i1", "i4"), events=3)], 60)
        left = [synthesizer.vocabulary.index[f"i{n}"] for n in range(6)]
        assert np.isin(drawn.items, left).mean() > 0.7

    def test_a_profile_decides_where_it_is_supported(self) -> None:
        frame, profiles = tastes("profile")
        synthesizer = self._fitted(Interactions.from_frame(frame, profiles=profiles))
        if "profile" not in synthesizer.supports:
            pytest.skip("profiles are not supported")
        shares = expected_of(synthesizer, "a", [Conditions(profile={"group": group}) for group in ("young", "old")])
        assert shares[0] > 1.5 * shares[1]

    def test_a_category_and_a_text_draw_their_items(self) -> None:
        synthesizer = self._fitted(labelled())
        for name, condition in (
            ("category", Conditions(category="left")),
            ("text", Conditions(text="left shoe")),
        ):
            if name not in synthesizer.supports:
                continue
            left = [f"i{n}" for n in range(6)]
            with_it, without = (
                sum(float(expected_of(synthesizer, item, [given])[0]) for item in left)
                for given in (condition, ANYTHING)
            )
            assert with_it > min(1.3 * without, 0.9), name

    def test_conditions_that_it_does_not_support_are_refused(self, fitted: Synthesizer) -> None:
        for name in CONDITION_NAMES:
            if name not in fitted.supports:
                with pytest.raises(SynthesisError, match=f"cannot be conditioned on {name}"):
                    sample(fitted, [EXAMPLES[name]], 1)
                sample(fitted, [EXAMPLES[name].only(fitted.supports)], 1)

    def test_forbidden_items_never_come(self, fitted: Synthesizer, conditions: list[Conditions]) -> None:
        options = SamplingOptions(constraints=(OnlyEven(),))
        histories = fitted.sample(conditions, 20, np.random.default_rng(SEED), options)
        assert len(histories.items) > 0
        assert (histories.items % 2 == 0).all()

    def test_top_1_decoding_draws_the_most_probable_item(self, fitted: Synthesizer) -> None:
        if "first" not in fitted.supports:
            pytest.skip("it has no first events")
        condition = Conditions(first=known("i3", "i4"), events=1)
        options = SamplingOptions(decoding=Decoding(top_k=1))
        drawn = fitted.sample([condition], 30, np.random.default_rng(SEED), options)
        assert len(set(drawn.items.tolist())) == 1

    def test_a_planted_sequence_does_not_come_back(self) -> None:
        frame = started(clubs())
        planted = ["i0", "i7", "i1", "i8", "i2", "i9", "i3", "i10"]
        rows = [("planted", item, "view", None, START + 20_000 + 1_000 * step) for step, item in enumerate(planted)]
        whole = pd.concat([frame, pd.DataFrame(rows, columns=frame.columns)])
        synthesizer = self._fitted(Interactions.from_frame(whole))
        conditions = [ANYTHING, Conditions(first=known("i0", "i7")).only(synthesizer.supports)]
        histories = sample(synthesizer, conditions, 300)
        secret = [synthesizer.vocabulary.index[item] for item in planted[2:]]
        returned = False
        for row in range(len(histories)):
            events = histories.items[histories.starts[row] : histories.starts[row + 1]].tolist()
            returned |= any(events[start : start + 6] == secret for start in range(len(events)))
        assert returned == self.copies_users

    def test_what_is_loaded_generates_what_was_saved(
        self, fitted: Synthesizer, conditions: list[Conditions], tmp_path: Path
    ) -> None:
        names = fitted.save(tmp_path, "synthesizer.")
        arrays = {
            name.removeprefix("synthesizer.").removesuffix(".npy"): np.load(tmp_path / name, allow_pickle=False)
            for name in names
        }
        loaded = registry.load(self.name, fitted.describe(), fitted.vocabulary, arrays)
        assert_same(sample(fitted, conditions, 5), sample(loaded, conditions, 5))
        np.testing.assert_allclose(fitted.expected(conditions[:1]), loaded.expected(conditions[:1]), atol=1e-5)

    def test_likely_sequences_have_the_higher_probability(self, fitted: Synthesizer) -> None:
        interactions = Interactions.from_frame(started(ring()), fitted.vocabulary)
        real = Histories.from_interactions(interactions).take(np.arange(20))
        logs = fitted.log_prob(real)
        if logs is None:
            pytest.skip("it has no likelihood")
        assert (logs < 0).all()
        shuffled = Histories(
            real.starts,
            np.random.default_rng(0).permutation(real.items),
            real.kinds,
            real.at,
            real.values,
            real.sessions,
        )
        other = fitted.log_prob(shuffled)
        assert other is not None
        if self.knows_order:
            assert logs.sum() > other.sum()

    def test_nothing_to_learn_from_is_an_error(self) -> None:
        with pytest.raises(SynthesisError, match="no events"):
            self._fitted(Interactions.from_frame(ring().iloc[:0]))

    def test_fifty_users_with_two_events_are_enough(self) -> None:
        frame = started(ring(50, 2))
        synthesizer = self._fitted(Interactions.from_frame(frame))
        assert (sample(synthesizer, [ANYTHING], 20).lengths >= 1).all()


class OnlyEven(ItemConstraint):
    """Allows items of even index alone."""

    def factors(self, state: DrawingState) -> Float32:  # noqa: ARG002
        even: Float32 = (np.arange(RING) % 2 == 0).astype(np.float32)
        return even


def started(frame: pd.DataFrame) -> pd.DataFrame:
    """The same events, from START on."""
    return frame.assign(at=frame["at"] + START)


def sample(synthesizer: Synthesizer, conditions: list[Conditions], n: int, seed: int = SEED) -> Histories:
    return synthesizer.sample(conditions, n, np.random.default_rng(seed))


def with_events(condition: Conditions, events: int) -> Conditions:
    return msgspec.structs.replace(condition, events=events)


def expected_of(synthesizer: Synthesizer, item: str, conditions: list[Conditions]) -> Float32:
    """float32 [conditions]: the expected share of an item at the next event."""
    return synthesizer.expected(conditions)[:, synthesizer.vocabulary.index[item]].astype(np.float32)


def labelled() -> Interactions:
    """The two clubs, each with a category and titles of its own."""
    names = [f"i{n}" for n in range(12)]
    sides = ["left" if n < 6 else "right" for n in range(12)]
    items = [
        CatalogueEntry(item_id=name, at=0, category=side, title=f"{side} shoe {number}")
        for number, (name, side) in enumerate(zip(names, sides, strict=True))
    ]
    return Interactions.from_frame(started(clubs()), item_features=ItemFeatures.from_items(items))


def assert_same(left: Histories, right: Histories) -> None:
    for name in ("starts", "items", "kinds", "at", "sessions"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    np.testing.assert_array_equal(left.values, right.values)
