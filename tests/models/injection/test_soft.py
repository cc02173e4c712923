"""Soft injection on tiny shops, against products of matrices written out by hand."""

import numpy as np
import pandas as pd
import pytest

from features.activity import History
from models.arrays import Float32
from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.injection.direct import GeneratorRanking
from models.injection.imagination import Imagination, Imagined, largest
from models.injection.injection import Injection, fading
from models.injection.soft import ExpectationTable, Expected, SoftInjection, tabulated
from models.recommenders.base import Scorer
from models.recommenders.blend import BUCKETS, BlendScorer
from models.recommenders.ease import EASE
from models.recommenders.ials import IALS
from models.recommenders.item_item import ItemItem
from models.recommenders.item_knn import ItemKNN
from models.recommenders.personal import Personal
from models.recommenders.rp3beta import RP3Beta
from models.recommenders.sequential_rules import SequentialRules
from models.recommenders.svd_filter import SVDFilter
from models.recommenders.user_knn import UserKNN
from models.synthesizers.markov import Markov
from models.synthesizers.walk import Walk
from stream.events import KIND_CODES
from testing.interactions import clubs, history, ring

PURCHASE = KIND_CODES["purchase"]
LOG = Interactions.from_frame(clubs())
RING_LOG = Interactions.from_frame(ring())


class FixedEvents(Imagination):
    """The same imagined events for every history, given as rows of one path each."""

    def __init__(self, vocabulary: Vocabulary, items: list[int], shares: list[float], *, before: bool = False) -> None:
        super().__init__()
        self.vocabulary, self.calls = vocabulary, 0
        self._items, self._shares, self._before = items, shares, before

    def imagine(self, batch: Batch) -> Imagined:
        self.calls += 1
        items = np.tile(np.array(self._items, np.int32), (len(batch), 1))
        return Imagined.of_items(
            items, np.tile(np.array(self._shares, np.float32), (len(batch), 1)), before=self._before
        )


def bought(*items: str) -> History:
    return history(*items, kind=PURCHASE)


def batch_for(vocabulary: Vocabulary, *histories: History) -> Batch:
    return batch_histories(histories, vocabulary, 8)


def dense(member: ItemItem) -> Float32:
    """The item-item matrix B, float64 [items, items]."""
    size = len(member.vocabulary)
    matrix = np.zeros((size, size))
    for item in range(size):
        for neighbor, similarity in zip(member.neighbors[item], member.similarities[item], strict=True):
            if neighbor >= 0:
                matrix[item, neighbor] += similarity
    return matrix


def steps_matrix(walk: Walk) -> Float32:
    """The transition matrix P of a walk, float64 [items, items]."""
    size = len(walk.vocabulary)
    return np.array([walk.forward.after(np.array([item], np.int32))[0] for item in range(size)], np.float64)


def fitted(recommender: Scorer, log: Interactions = LOG) -> Scorer:
    recommender.fit(log)  # type: ignore[attr-defined]
    return recommender


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("recommender", [ItemKNN, EASE, RP3Beta, SequentialRules])
def test_it_is_two_hop_smoothing_for_linear_recommenders(recommender: type[ItemItem], steps: int) -> None:
    """v (I + w P^h) B, for v the history's weights."""
    member, walk, decay, weight = fitted(recommender()), Walk(), 0.7, 0.4
    member.params = type(member.params)(decay=decay)  # type: ignore[attr-defined]
    walk = Walk(Walk.Params(decay=decay))
    walk.fit(LOG)
    soft = SoftInjection(member, walk, steps=steps, top=len(LOG.vocabulary), weight=(0, weight, weight, weight))
    taken = ["i0", "i7", "i3"]
    v = np.zeros(len(LOG.vocabulary))
    for age, item in enumerate(reversed(taken)):
        v[LOG.vocabulary.index[item]] += decay**age
    p = np.linalg.matrix_power(steps_matrix(walk), steps)
    expected = v @ (np.eye(len(v)) + weight * p) @ dense(member)  # type: ignore[arg-type]
    scores = soft.score(batch_for(LOG.vocabulary, bought(*taken)))[0]
    np.testing.assert_allclose(scores - member.prior, expected, rtol=1e-4, atol=1e-6)  # type: ignore[attr-defined]


def test_weights_follow_the_kinds_of_real_events() -> None:
    """Views weigh .3: so do the events imagined after one."""
    member = fitted(ItemKNN())
    soft = Injection(member, FixedEvents(LOG.vocabulary, [1, 2], [3.0, 1.0]), weight=(0, 0.5))
    viewed, purchased = soft.score(batch_for(LOG.vocabulary, history("i4"), bought("i4"))) - member.prior  # type: ignore[attr-defined]
    np.testing.assert_allclose(viewed, 0.3 * purchased, rtol=1e-5)
    matrix = dense(member)  # type: ignore[arg-type]
    real = matrix[LOG.vocabulary.index["i4"]]
    np.testing.assert_allclose(purchased, real + 0.5 * (0.75 * matrix[0] + 0.25 * matrix[1]), rtol=1e-4, atol=1e-7)


def test_an_svd_filter_projects_the_imagined_events_too() -> None:
    member = fitted(SVDFilter(SVDFilter.Params(rank=3)))
    soft = Injection(member, FixedEvents(LOG.vocabulary, [3], [1.0]), weight=(0, 0.5))
    scores = soft.score(batch_for(LOG.vocabulary, bought("i4")))[0]
    inputs = member.inputs[LOG.vocabulary.index["i4"]] + 0.5 * member.inputs[2]  # type: ignore[attr-defined]
    np.testing.assert_allclose(scores, inputs @ member.outputs.T + member.prior, rtol=1e-4, atol=1e-6)  # type: ignore[attr-defined]


def test_user_knn_squares_the_overlap_with_both() -> None:
    """Two users: one has both items, the other the imagined one only: overlaps 1.5 and .5, squared."""
    rows = [("a", "x"), ("a", "y"), ("a", "p"), ("b", "y"), ("b", "q")]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"]).assign(kind="purchase", at=range(len(rows)))
    log = Interactions.from_frame(frame)
    member = fitted(UserKNN(UserKNN.Params(size_power=0, item_power=0, rarity=0)), log)
    soft = Injection(member, FixedEvents(log.vocabulary, [log.vocabulary.index["y"] + 1], [1.0]), weight=(0, 0.5))
    scores = soft.score(batch_for(log.vocabulary, bought("x")))[0]
    assert scores[log.vocabulary.index["p"]] == pytest.approx(1.5**2, abs=1e-4)
    assert scores[log.vocabulary.index["q"]] == pytest.approx(0.5**2, abs=1e-4)


def test_a_little_weight_changes_ials_a_little() -> None:
    member = fitted(IALS(IALS.Params(factors=4)))
    batch = batch_for(LOG.vocabulary, bought("i4"))
    soft = Injection(member, FixedEvents(LOG.vocabulary, [3], [1.0]), weight=(0, 1e-4))
    np.testing.assert_allclose(soft.score(batch), member.score(batch), atol=1e-2)


def test_a_blend_is_injected_member_by_member_and_imagines_once() -> None:
    members = [fitted(ItemKNN()), fitted(SequentialRules()), fitted(Personal())]
    imagination = FixedEvents(LOG.vocabulary, [3, 9], [0.5, 0.5])
    weights = np.tile(np.array([0.5, 0.3, 0.2]), (BUCKETS, 1))
    soft = Injection(BlendScorer(members, weights), imagination, weight=(0, 0.5))
    batch = batch_for(LOG.vocabulary, bought("i4"))
    alone = [Injection(member, FixedEvents(LOG.vocabulary, [3, 9], [0.5, 0.5]), weight=(0, 0.5)) for member in members]
    expected = sum(share * arm.probabilities(batch) for share, arm in zip((0.5, 0.3, 0.2), alone, strict=True))
    np.testing.assert_allclose(soft.probabilities(batch), expected, atol=1e-6)
    assert imagination.calls == 1
    np.testing.assert_array_equal(alone[2].probabilities(batch), members[2].probabilities(batch))  # own events only


class Echo(Scorer):
    """An encoder whose answer is the newest item of a history, or item 0: so answers show which histories it read."""

    is_neural = True
    name = "echo"

    def __init__(self, vocabulary: Vocabulary, *, oldest: bool = False) -> None:
        self.vocabulary, self.oldest, self.gaps = vocabulary, oldest, np.zeros((0, 0))

    def score(self, batch: Batch) -> Float32:
        out = np.zeros((len(batch), len(self.vocabulary)), np.float32)
        for row, numbers in enumerate(batch.items):
            known = numbers[numbers > 0]
            out[row, (known[0 if self.oldest else -1] - 1) if len(known) else 0] = 1.0
        self.gaps = batch.gaps
        return out


def test_an_encoder_gives_the_mixture_over_imagined_events() -> None:
    batch = batch_for(LOG.vocabulary, bought("i4"), bought())
    own = LOG.vocabulary.index["i4"]
    soft = Injection(Echo(LOG.vocabulary), FixedEvents(LOG.vocabulary, [3, 9, 0], [3.0, 1.0, 9.0]), weight=(1.0, 0.5))
    scores = soft.probabilities(batch)
    assert scores[0, [own, 2, 8]] == pytest.approx([2 / 3, 0.75 / 3, 0.25 / 3])
    assert scores[1, [0, 2, 8]] == pytest.approx([1 / 2, 0.75 / 2, 0.25 / 2])
    assert soft.injected_events(batch).tolist() == [2, 2]


def test_events_imagined_before_stand_before() -> None:
    encoder = Echo(LOG.vocabulary, oldest=True)
    soft = Injection(encoder, FixedEvents(LOG.vocabulary, [3], [1.0], before=True), weight=(0, 1.0))
    scores = soft.probabilities(batch_for(LOG.vocabulary, bought("i4")))
    assert scores[0, [LOG.vocabulary.index["i4"], 2]] == pytest.approx([0.5, 0.5])
    assert encoder.gaps[0, -2:].tolist() == [32, 17]


def test_weights_fade_with_real_events() -> None:
    assert fading(0.8, 3).tolist() == pytest.approx([0.8, 0.8, 0.4])
    member = fitted(ItemKNN())
    soft = Injection(member, FixedEvents(LOG.vocabulary, [3, 9], [1.0, 1.0]), weight=1.0)
    batch = batch_for(LOG.vocabulary, *(bought(*[f"i{n}" for n in range(k)]) for k in range(7)))
    assert soft.injected_events(batch).tolist() == [2, 2, 2, 2, 2, 0, 0]
    np.testing.assert_allclose(soft.score(batch)[5:], member.score(batch)[5:])


@pytest.mark.parametrize("weight", [(-1.0,), (float("nan"),)])
def test_impossible_weights_are_refused(weight: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Injection(fitted(ItemKNN()), FixedEvents(LOG.vocabulary, [1], [1.0]), weight=weight)


def test_another_vocabulary_is_refused() -> None:
    other = Vocabulary.from_items(["elsewhere"])
    with pytest.raises(ValueError, match="fit both on the same interactions"):
        Injection(fitted(ItemKNN()), FixedEvents(other, [1], [1.0]), weight=1.0)


@pytest.mark.parametrize("steps", [1, 2, -1])
def test_a_table_imagines_what_a_walk_does(steps: int) -> None:
    walk = Walk(Walk.Params(decay=0.6))
    walk.fit(LOG)
    table = tabulated(walk, steps=steps, top=len(LOG.vocabulary), decay=0.6)
    batch = batch_for(LOG.vocabulary, bought("i1"), bought("i0", "i7"), bought("i0", "i2", "i8"))
    direct = Expected(walk, steps=steps, top=len(LOG.vocabulary))
    by_table, by_walk = shares_by_item(table.of(batch)), shares_by_item(direct.of(batch))
    np.testing.assert_allclose(by_table, by_walk, atol=1e-5)


def test_a_table_of_a_chain_imagines_after_the_newest_event_and_for_no_event() -> None:
    markov = Markov()
    markov.fit(RING_LOG)
    table = tabulated(markov, top=4)
    batch = batch_for(RING_LOG.vocabulary, bought("i9", "i3"), bought())
    direct = Expected(markov, top=4)
    np.testing.assert_array_equal(table.of(batch).items, direct.of(batch).items)
    np.testing.assert_allclose(table.of(batch).shares, direct.of(batch).shares, atol=1e-6)


def test_a_table_of_other_items_is_refused() -> None:
    with pytest.raises(ValueError, match="one row more"):
        ExpectationTable(LOG.vocabulary, np.zeros((3, 2), np.int32), np.zeros((3, 2), np.float32), decay=0.0)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_generator_ranks_what_comes_so_many_events_later(steps: int) -> None:
    """On the ring, after item 3 comes item 3 + h."""
    markov = Markov()
    markov.fit(RING_LOG)
    scores = GeneratorRanking(markov, steps=steps).probabilities(batch_for(RING_LOG.vocabulary, bought("i2", "i3")))
    assert RING_LOG.vocabulary.item_ids[int(scores[0].argmax())] == f"i{3 + steps}"
    assert scores.sum() == pytest.approx(1.0, abs=1e-4)


def test_the_largest_come_first_and_ties_by_number() -> None:
    items, values = largest(np.array([[0.2, 0.0, 0.5, 0.2], [0.0, 0.0, 0.0, 0.1]], np.float32), 2)
    assert items.tolist() == [[3, 1], [4, 0]]
    assert values.tolist() == [[0.5, pytest.approx(0.2)], [pytest.approx(0.1), 0.0]]


def shares_by_item(imagined: Imagined) -> Float32:
    out = np.zeros((len(imagined.items), len(LOG.vocabulary) + 1))
    for row in range(len(out)):
        np.add.at(out[row], imagined.items[row, :, 0], imagined.shares[row])
    return out[:, 1:]
