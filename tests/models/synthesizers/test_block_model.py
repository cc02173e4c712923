"""The block model: planted groups are recovered, popularity drifts."""

import numpy as np
import pandas as pd
from scipy import sparse

from features.activity import History
from models.data.interactions import Interactions
from models.synthesizers.block_model import BlockModel, block_groups
from models.synthesizers.conditions import Conditions
from models.synthesizers.histories import Histories


def test_planted_groups_come_back_whatever_the_degrees() -> None:
    rng = np.random.default_rng(0)
    users, items = np.repeat(np.arange(3), 100), np.repeat(np.arange(3), 40)
    share = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    degrees = rng.pareto(1.5, 120) + 0.2  # Zipf-like popularity within each group
    chances = share[users][:, items] * degrees
    chances /= chances.sum(axis=1, keepdims=True)
    counts = np.stack([rng.multinomial(20, row) for row in chances]).astype(np.float32)
    user_groups, item_groups = block_groups(sparse.csr_matrix(counts), (3, 3), 30)
    for truth, groups in ((users, user_groups), (items, item_groups)):
        table = np.zeros((3, 3))
        np.add.at(table, (truth, groups), 1)
        assert table.max(axis=1).sum() > 0.9 * len(truth)
        assert len(set(table.argmax(axis=1))) == 3


def drifting() -> Interactions:
    """In the first half of the time everyone takes a, in the second b."""
    rows = [
        (f"u{user}", "a" if user < 50 else "b", "view", 1_000 * user + step) for user in range(100) for step in (1, 2)
    ]
    return Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]))


def test_popularity_drifts() -> None:
    model = BlockModel(BlockModel.Params(slices=2, drift_back_off=5.0))
    model.fit(drifting())
    seen = [Conditions(first=History(["unknown"], [0], [at], [None])) for at in (1_000, 99_000)]
    early, late = model.expected(seen)[:, model.vocabulary.index["a"]]
    assert early > 0.9
    assert late < 0.1


def test_likelihood_sums_over_groups() -> None:
    model = BlockModel()
    model.fit(drifting())
    histories = Histories.from_interactions(drifting()).take(np.arange(4))
    logs = model.log_prob(histories)
    for row in range(4):
        events = slice(int(histories.starts[row]), int(histories.starts[row + 1]))
        items, times = histories.items[events], histories.at
        slices = np.searchsorted(model.slice_ends, times[events])
        by_group = model.prior * np.prod(model.between[:, model.item_groups[items]], axis=1)
        own = np.prod(model.within[slices, items].astype(np.float64))
        np.testing.assert_allclose(logs[row], np.log(by_group.sum() * own), rtol=1e-5)


def test_a_shop_whose_users_share_no_items_can_be_fitted() -> None:
    """All singular values are equal then, and an iteration would not converge."""
    rows = [(f"u{user}", f"i{user}-{item}", "view", 1_000 + item) for user in range(120) for item in range(6)]
    model = BlockModel()
    model.fit(Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"])))
    expected = model.expected([Conditions()])
    assert expected.shape == (1, 720)
    np.testing.assert_allclose(expected.sum(), 1.0, rtol=1e-4)
