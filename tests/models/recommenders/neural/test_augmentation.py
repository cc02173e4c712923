"""Augmentation changes what it says it changes, and nothing is learned that the encoder has seen."""

import numpy as np
import pytest

from models.arrays import Int64
from models.data.batch import FIRST_GAP, START, Batch
from models.recommenders.neural import augmentation

LENGTH = 12


def histories(*lengths: int) -> tuple[Batch, Int64]:
    """Items count up from 1 in each history; what follows item n is the event at position n."""
    items = np.stack([np.pad(np.arange(1, n + 1), (LENGTH - n, 0)) for n in lengths]).astype(np.int32)
    kinds = np.where(items > 0, 1 + items % 3, 0).astype(np.int32)
    gaps = np.where(items > 0, 5, 0).astype(np.int32)
    return Batch(items, kinds, gaps), np.where(items > 0, items, -1).astype(np.int64)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_a_cropped_history_begins_later_and_keeps_its_end(rng: np.random.Generator) -> None:
    batch, drawn = histories(*[8] * 200)
    cropped, after = augmentation.crop(batch, drawn, 1.0, rng)
    assert set(cropped.lengths.tolist()) == set(range(1, 9))
    for row in range(len(cropped)):
        kept = cropped.lengths[row]
        assert cropped.items[row, -kept:].tolist() == list(range(9 - kept, 9))
        assert cropped.gaps[row, LENGTH - kept] == FIRST_GAP
        assert (after[row, :-kept] == -1).all()
        assert after[row, -kept:].tolist() == cropped.items[row, -kept:].tolist()
    same, _ = augmentation.crop(batch, drawn, 0.0, rng)
    np.testing.assert_array_equal(same.items, batch.items)


def test_a_shuffled_stretch_gives_no_target_away(rng: np.random.Generator) -> None:
    batch, drawn = histories(*[10] * 200, 1, 2, 0)
    reordered, after = augmentation.reorder(batch, drawn, 1.0, rng)
    assert (reordered.items != batch.items).any()
    np.testing.assert_array_equal(np.sort(reordered.items, axis=1), batch.items)
    for row, place in zip(*np.nonzero(after >= 0), strict=True):
        following = after[row, place] + 1  # the item of the next event
        assert following not in reordered.items[row, : place + 1]
    pairs = {
        (int(item), int(kind)) for item, kind in zip(reordered.items.ravel(), reordered.kinds.ravel(), strict=True)
    }
    assert pairs == {(int(a), int(b)) for a, b in zip(batch.items.ravel(), batch.kinds.ravel(), strict=True)}


def test_substitutes_are_similar_items_and_padding_stays(rng: np.random.Generator) -> None:
    batch, _ = histories(12, 3)
    near = np.zeros((13, 2), np.int32)
    near[1:7] = [[101, 102]] * 6  # the others have no similar item
    substituted = augmentation.substitute(batch, near, 1.0, rng)
    assert set(substituted.items[0, :6].tolist()) <= {101, 102}
    assert substituted.items[0, 6:].tolist() == list(range(7, 13))
    assert substituted.items[1, :9].tolist() == [0] * 9


def test_a_share_is_masked(rng: np.random.Generator) -> None:
    batch, _ = histories(*[12] * 500)
    masked = augmentation.mask(batch, 0.25, rng)
    assert (masked.items == 0).mean() == pytest.approx(0.25, abs=0.03)


def test_a_prefix_is_a_beginning_on_the_right(rng: np.random.Generator) -> None:
    batch, drawn = histories(*[8] * 100, 2)
    shortened, after = augmentation.prefix(batch, drawn, 1.0, rng)
    assert set(shortened.lengths[:100].tolist()) == {1, 2, 3}
    for row in range(len(shortened)):
        kept = shortened.lengths[row]
        assert shortened.items[row].tolist() == [0] * (LENGTH - kept) + list(range(1, kept + 1))
        assert after[row].tolist() == [-1] * (LENGTH - kept) + list(range(1, kept + 1))
    same, _ = augmentation.prefix(batch, drawn, 0.0, rng)
    np.testing.assert_array_equal(same.kinds, batch.kinds)


def test_a_prefix_may_be_the_start_token_alone(rng: np.random.Generator) -> None:
    batch, drawn = histories(*[6] * 50, LENGTH)
    batch.kinds[:50, LENGTH - 7], drawn[:50, LENGTH - 7] = START, 99
    shortened, after = augmentation.prefix(batch, drawn, 1.0, rng)
    assert set(shortened.lengths[:50].tolist()) == {0, 1, 2, 3}
    assert shortened.lengths[50] == LENGTH  # it has no start token: it is no beginning
    for row in range(50):
        place = LENGTH - 1 - shortened.lengths[row]
        assert shortened.kinds[row, place] == START
        assert after[row, place] == 99
        assert not shortened.kinds[row, :place].any()
