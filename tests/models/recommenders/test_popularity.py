"""What counting recommenders compute, by hand."""

import numpy as np
import pandas as pd
import pytest

from features.activity import History
from models.data.batch import FIRST_GAP, batch_histories
from models.data.interactions import Interactions
from models.data.windows import cut_windows
from models.recommenders.ease import EASE
from models.recommenders.ials import IALS
from models.recommenders.item_item import largest_in_rows
from models.recommenders.item_knn import ItemKNN
from models.recommenders.personal import Personal
from models.recommenders.popularity import Popularity
from models.recommenders.sequential_rules import SequentialRules
from models.recommenders.tuning_space import DAY_MS
from stream.events import KIND_CODES

VIEW, PURCHASE = KIND_CODES["view"], KIND_CODES["purchase"]


def frame(*rows: tuple[str, str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).assign(value=None)


def sets(**users: str) -> Interactions:
    """Each user took the items of its letters, one a second."""
    rows = [(user, item, "view", 1_000 * n) for user, items in users.items() for n, item in enumerate(items)]
    return Interactions.from_frame(frame(*sorted(rows, key=lambda row: row[3])))


def recent(items: str, kind: int = VIEW) -> History:
    return History(list(items), [kind] * len(items), [1_000 * n for n in range(len(items))], [None] * len(items))


def row(table: ItemKNN | SequentialRules | EASE, log: Interactions, item: str) -> dict[str, float]:
    place = log.vocabulary.index[item]
    pairs = zip(table.neighbors[place].tolist(), table.similarities[place].tolist(), strict=True)
    return {log.vocabulary.item_ids[other]: amount for other, amount in pairs if other >= 0}


def test_windowed_popularity_prefers_the_newest() -> None:
    log = Interactions.from_frame(
        frame(("u", "old", "view", 0), ("v", "old", "view", 0), ("w", "new", "view", 56 * DAY_MS))
    )
    all_time, windowed = Popularity(Popularity.Params(half_life_ms=None)), Popularity()
    for model in (all_time, windowed):
        model.fit(log)
    assert all_time.popularity.tolist() == pytest.approx([0.6, 0.3])
    assert windowed.popularity.tolist() == pytest.approx([2 * 0.3 / 4, 0.3])


def test_personal_puts_the_newest_of_the_history_first() -> None:
    model = Personal(Personal.Params(decay=0.5))
    log = sets(u="abc", v="cc")
    model.fit(log)
    scores = model.score(batch_histories([recent("aba")], log.vocabulary, 5))[0]
    index = log.vocabulary.index
    assert scores[index["a"]] == pytest.approx(0.3 * (1 + 0.25), rel=1e-4)
    assert scores[index["b"]] == pytest.approx(0.3 * 0.5, rel=1e-4)
    assert 0 < scores[index["c"]] < 1e-5


def test_similarity_is_shrunk_cosine() -> None:
    log = sets(u="ab", v="ab", w="ac", x="d")
    model = ItemKNN(ItemKNN.Params(neighbors=2, shrink=1.0))
    model.fit(log)
    assert row(model, log, "a") == pytest.approx({"b": 2 / (np.sqrt(6) + 1), "c": 1 / (np.sqrt(3) + 1)}, rel=1e-6)
    assert row(model, log, "d") == {}


def test_asymmetric_similarity_and_users_that_took_much() -> None:
    log = sets(u="ab", v="abcd")
    model = ItemKNN(ItemKNN.Params(shrink=0.0, alpha=1.0, user_power=1.0))
    model.fit(log)
    totals = {"a": 1 / 2 + 1 / 4, "c": 1 / 4}
    assert row(model, log, "c")["a"] == pytest.approx((1 / 4) / totals["c"])
    assert row(model, log, "a")["c"] == pytest.approx((1 / 4) / totals["a"])
    assert row(model, log, "a")["b"] == pytest.approx(1.0)


def test_the_newest_item_of_a_history_weighs_most() -> None:
    log = sets(u="ax", v="by", w="z")
    model = ItemKNN(ItemKNN.Params(shrink=0.0))
    model.fit(log)
    scores = model.score(batch_histories([recent("ab")], log.vocabulary, 5))[0]
    index = log.vocabulary.index
    assert scores[index["y"]] > scores[index["x"]] > scores[index["z"]]
    assert scores[index["x"]] == pytest.approx(0.85 * scores[index["y"]], rel=1e-4)


def test_a_skip_is_no_shared_interest() -> None:
    model = ItemKNN()
    model.fit(Interactions.from_frame(frame(("u", "a", "skip", 0), ("u", "b", "view", 0), ("v", "a", "view", 0))))
    assert (model.neighbors == -1).all()


def test_rules_count_what_follows_by_distance() -> None:
    log = sets(u="abc", v="ab")
    model = SequentialRules(SequentialRules.Params(steps=2, shrink=0.0, discount=0.0))
    model.fit(log)
    assert row(model, log, "a") == pytest.approx({"b": 0.6 / 0.75, "c": 0.15 / 0.75})
    assert row(model, log, "c") == {}


def test_ease_is_the_closed_form() -> None:
    """Against numpy's own inverse: B = I - P diag(P)^-1."""
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{item}", "view", 0) for user in range(40) for item in rng.permutation(8)[: 2 + user % 4]]
    log = Interactions.from_frame(frame(*rows))
    model = EASE(EASE.Params(reg=3.0, neighbors=8))
    model.fit(log)
    taken = log.user_item_matrix().toarray()
    inverse = np.linalg.inv(taken.T @ taken + 3.0 * np.eye(8))
    expected = np.eye(8) - inverse / np.diag(inverse)[None]
    similarities = np.zeros((8, 8))
    for item in range(8):
        for other, amount in zip(model.neighbors[item], model.similarities[item], strict=True):
            if other >= 0:
                similarities[item, other] = amount
    np.testing.assert_allclose(similarities, expected * (1 - np.eye(8)), atol=1e-5)


def test_ease_leaves_out_what_is_beyond_its_items() -> None:
    log = sets(u="abc", v="ab", w="abc")
    model = EASE(EASE.Params(reg=1.0, most=2))
    model.fit(log)
    assert set(row(model, log, "a")) == {"b"}
    assert row(model, log, log.vocabulary.item_ids[2]) == {}


def test_a_folded_in_user_is_the_one_that_implicit_computes() -> None:
    from implicit.cpu.als import AlternatingLeastSquares

    rng = np.random.default_rng(1)
    rows = [
        (f"u{user}", f"i{item}", "purchase", n) for user in range(30) for n, item in enumerate(rng.permutation(9)[:4])
    ]
    log = Interactions.from_frame(frame(*sorted(rows, key=lambda row: row[3])))
    model = IALS(IALS.Params(factors=4, reg=0.1, alpha=5.0, iterations=5, decay=1.0))
    model.fit(log)
    theirs = AlternatingLeastSquares(4, regularization=0.1, alpha=5.0, iterations=5, random_state=0)
    theirs.fit(log.user_item_matrix(), show_progress=False)
    user = theirs.recalculate_user(0, log.user_item_matrix()[0])
    history = [log.vocabulary.item_ids[place] for place in log.user_item_matrix()[0].indices]
    batch = batch_histories([recent(history, PURCHASE)], log.vocabulary, 9)  # type: ignore[arg-type]
    np.testing.assert_allclose(model.score(batch)[0], theirs.item_factors @ user, atol=1e-3)


def test_the_heaviest_of_each_row() -> None:
    from scipy import sparse

    matrix = np.array([[0, 2, 1, 2], [0, 0, 0, 0], [5, 0, 0, 0]], np.float32)
    near, amounts = largest_in_rows(sparse.csr_matrix(matrix), 2)
    assert near.tolist() == [[1, 3], [-1, -1], [0, -1]]
    assert amounts.tolist() == [[2, 2], [0, 0], [5, 0]]


def test_a_log_has_each_users_events_together_and_in_order() -> None:
    log = Interactions.from_frame(
        frame(("u", "a", "view", 1), ("v", "b", "view", 2), ("u", "b", "skip", 3), ("u", "c", "view", 4))
    )
    ids = [log.vocabulary.item_ids[place] for place in log.items]
    assert (log.users.tolist(), ids, log.at.tolist()) == ([0, 0, 1], ["a", "c", "b"], [1, 4, 2])


def test_a_batch_holds_the_newest_on_the_right_with_gaps() -> None:
    log = sets(u="ab")
    history = History(["a", "x", "b", "a"], [VIEW] * 4, [0, 1, 3_000, 3_000], [None] * 4)
    batch = batch_histories([history], log.vocabulary, 4)
    index = log.vocabulary.index
    assert batch.items[0].tolist() == [0, index["a"] + 1, index["b"] + 1, index["a"] + 1]
    assert batch.gaps[0].tolist() == [0, FIRST_GAP, 3, 1]  # 3 s: log2(1 + 3) + 1
    assert batch.newest(2).gaps[0].tolist() == [FIRST_GAP, 1]
    assert batch.newest(6).items[0].tolist() == [0, 0, *batch.items[0].tolist()]


def test_windows_know_what_may_follow() -> None:
    log = Interactions.from_frame(
        frame(*[("u", item, "view", at) for item, at in (("a", 1), ("b", 2), ("c", 2), ("d", 3))])
    )
    number = {item: place + 1 for item, place in log.vocabulary.index.items()}
    baskets = cut_windows(log, 4, 1)
    sets_of = [
        set(baskets.event_items[first:last].tolist())
        for first, last in zip(baskets.next_start[0], baskets.next_stop[0], strict=True)
    ]
    assert sets_of == [{number["b"], number["c"]}, {number["d"]}, {number["d"]}, set()]
    ordered = cut_windows(log, 4, 1, baskets=False)
    rng = np.random.default_rng(0)
    drawn = ordered.sample_next(np.array([0]), rng)[0]
    assert drawn[3] == -1
    assert ordered.event_items[drawn[:3]].tolist() == [number["b"], number["c"], number["d"]]
