"""Fidelity figures, on histories whose values are known by hand."""

import numpy as np
import pytest

from models.data.interactions import Interactions
from models.synthesizers.discriminator import feature_auc, sequence_auc
from models.synthesizers.fidelity import (
    Reference,
    compare,
    counted,
    mutual_information,
    overlap,
    precision_recall,
    ratio,
)
from models.synthesizers.histories import Histories
from testing.interactions import ring

RING = Interactions.from_frame(ring(120, 7))
REFERENCE = Reference.fit(RING)
HISTORIES = Histories.from_interactions(RING)


def replaced(histories: Histories, items: np.ndarray) -> Histories:
    return Histories(
        histories.starts,
        items.astype(np.int32),
        histories.kinds,
        histories.at,
        histories.values,
        histories.sessions,
    )


def test_the_same_histories_are_alike_in_everything() -> None:
    similarity = compare(HISTORIES, HISTORIES, REFERENCE)
    assert set(similarity.values()) == {1.0} or all(value == pytest.approx(1.0) for value in similarity.values())


def test_shuffled_items_keep_popularity_and_lose_transitions() -> None:
    shuffled = replaced(HISTORIES, np.random.default_rng(0).permutation(HISTORIES.items))
    similarity = compare(HISTORIES, shuffled, REFERENCE)
    assert similarity["items"] == pytest.approx(1.0)
    assert similarity["lengths"] == similarity["gaps"] == similarity["hours"] == pytest.approx(1.0)
    assert similarity["transitions"] < 0.3
    assert similarity["information-lag-1"] < 0.1


def test_one_popular_item_for_everyone_covers_little() -> None:
    similarity = compare(HISTORIES, replaced(HISTORIES, np.zeros(len(HISTORIES.items))), REFERENCE)
    assert similarity["coverage"] == pytest.approx(1 / 12)
    assert similarity["distinct-sequences"] < 0.2
    assert similarity["recall"] < 0.2


@pytest.mark.parametrize(
    ("left", "right", "similarity"),
    [
        ([0, 0, 1, 1], [0, 1, 2, 2], 0.5),
        ([0], [1], 0.0),
        ([0, 0, 0, 1], [0] * 6 + [1] * 2, 1.0),
        ([], [1], 0.0),
        ([], [], 1.0),
    ],
)
def test_overlap_is_one_minus_total_variation(left: list[int], right: list[int], similarity: float) -> None:
    assert overlap(counted(np.array(left)), counted(np.array(right))) == pytest.approx(similarity)


@pytest.mark.parametrize(("left", "right", "expected"), [(0.0, 0.0, 1.0), (0.0, 0.5, 0.0), (0.2, 0.8, 0.25), (3, 3, 1)])
def test_ratio_is_the_smaller_over_the_larger(left: float, right: float, expected: float) -> None:
    assert ratio(left, right) == pytest.approx(expected)


def test_mutual_information_of_a_ring_is_the_logarithm_of_its_size_and_of_chance_none() -> None:
    groups = np.arange(12, dtype=np.int32)
    assert mutual_information(HISTORIES, groups, 1) == pytest.approx(np.log(12), abs=0.15)
    assert mutual_information(HISTORIES, groups, 5) == pytest.approx(np.log(12), abs=0.15)
    random = replaced(HISTORIES, np.random.default_rng(0).integers(0, 12, len(HISTORIES.items)))
    assert mutual_information(random, groups, 1) < 0.05


def test_precision_falls_for_strange_users_and_recall_for_missing_ones() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 2)).astype(np.float32)
    near = rng.normal(size=(300, 2)).astype(np.float32)
    far = near + np.float32(20)
    narrow = (near * np.float32(0.05)).astype(np.float32)
    assert min(precision_recall(real, near)) > 0.9
    assert precision_recall(real, far) == (0.0, 0.0)
    precision, recall = precision_recall(real, narrow)
    assert precision > 0.9
    assert recall < 0.3


def test_discriminators_tell_wrong_order_from_right_and_not_half_from_half() -> None:
    rows = np.random.default_rng(1).permutation(len(HISTORIES))
    left, right = HISTORIES.take(rows[:60]), HISTORIES.take(rows[60:120])
    shuffled = replaced(right, np.random.default_rng(2).permutation(right.items))
    assert feature_auc(left, shuffled, REFERENCE) > 0.9
    assert feature_auc(left, right, REFERENCE) < 0.75


def test_the_sequence_discriminator_reads_order() -> None:
    real = Histories.from_interactions(Interactions.from_frame(ring(400, 7)))
    backward = replaced(real, real.items[::-1])
    assert sequence_auc(real, backward, 12, epochs=12) > 0.9
