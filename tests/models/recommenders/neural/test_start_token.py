"""The start token: what users take first is learned, and an empty history is answered by it and by the profile."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.catalogue import UserProfile
from models.data.batch import START, batch_histories, encoder_inputs
from models.data.interactions import Interactions
from models.data.profiles import ProfileHistory, ProfileSchema, RequestContext
from models.data.windows import cut_windows
from testing.encoders import save_and_load, small_encoder
from testing.interactions import OLD, YOUNG, history


def doors() -> tuple[pd.DataFrame, ProfileHistory]:
    """The young come in by `east` and the old by `west`, then everyone takes `hall` three times: the most popular."""
    rows, people = [], []
    for user in range(60):
        group = "young" if user % 3 else "old"
        people.append(UserProfile(f"u{user}", 0, attributes={"group": group}))
        first = "east" if group == "young" else "west"
        rows += [
            (f"u{user}", item, "view", 1_000 * step + user + 1) for step, item in enumerate((first, *["hall"] * 3))
        ]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).sort_values("at", kind="stable")
    return frame, ProfileHistory.from_users(people)


def test_an_empty_history_is_answered_by_first_events_and_the_profile(tmp_path: Path) -> None:
    frame, people = doors()
    model = small_encoder("dnn", 15, profile=True, start_token=True, prefixes=0.5)
    model.fit(Interactions.from_frame(frame, profiles=people))
    contexts = [RequestContext(YOUNG), RequestContext(OLD), RequestContext()]
    histories = [history()] * 3
    scores = model.score(batch_histories(histories, model.vocabulary, 50, contexts))
    best = [model.vocabulary.item_ids[place] for place in scores.argmax(axis=1)]
    assert best == ["east", "west", "east"]
    after = model.score(batch_histories([history("west")], model.vocabulary, 50, [RequestContext(OLD)]))
    assert model.vocabulary.item_ids[int(after[0].argmax())] == "hall"
    released = save_and_load(model, tmp_path)
    assert released.answers_empty_histories
    np.testing.assert_allclose(released.scores(histories, contexts), scores, atol=1e-4)


@pytest.mark.parametrize("encoder", ["cnn", "rnn", "transformer"])
def test_every_encoder_learns_first_events(encoder: str) -> None:
    model = small_encoder(encoder, 10, start_token=True, prefixes=0.5)
    model.fit(Interactions.from_frame(doors()[0]))
    scores = model.score(batch_histories([history(), history("east")], model.vocabulary, 50))
    assert [model.vocabulary.item_ids[place] for place in scores.argmax(axis=1)] == ["east", "hall"]
    assert not small_encoder(encoder, 1).answers_empty_histories


def test_windows_begin_with_the_start_token() -> None:
    rows = [("u", "a", "view", 5), ("u", "b", "view", 5), ("u", "c", "view", 7), ("v", "a", "view", 1)]
    log = Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]))
    number = {item: place + 1 for item, place in log.vocabulary.index.items()}
    windows = cut_windows(log, 5, 1, start_token=True)
    assert windows.batch.items.tolist() == [[0, 0, number["a"], number["b"], number["c"]], [0, 0, 0, 0, number["a"]]]
    assert windows.batch.kinds[:, :-1].tolist() == [[0, START, 1, 1], [0, 0, 0, START]]
    following = [
        set(windows.event_items[first:last].tolist())
        for first, last in zip(windows.next_start[0], windows.next_stop[0], strict=True)
    ]
    assert following == [set(), {number["a"], number["b"]}, {number["c"]}, {number["c"]}, set()]
    assert windows.event_items[windows.next_start[1, 3]] == number["a"]


def test_histories_with_room_begin_with_the_start_token() -> None:
    vocabulary = Interactions.from_frame(doors()[0]).vocabulary
    batch = batch_histories([history(), history("hall", "east"), history(*["hall"] * 5)], vocabulary, 3)
    kinds = encoder_inputs(batch, ProfileSchema(), context=False, start_token=True)["kinds"]
    view = batch.kinds[1, -1]
    assert kinds.tolist() == [[0, 0, START], [START, view, view], [view, view, view]]
    assert (encoder_inputs(batch, ProfileSchema(), context=False)["kinds"] == batch.kinds).all()
