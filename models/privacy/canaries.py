"""Canaries: planted users whose sequences nobody else has. A generator that gives them back has memorized users."""

import numpy as np
import pandas as pd

from models.synthesizers.base import Synthesizer
from models.synthesizers.histories import Histories

EVENTS = 8
ALTERNATIVES = 200


def plant_canaries(frame: pd.DataFrame, users: int, rng: np.random.Generator) -> tuple[pd.DataFrame, list[list[str]]]:
    """Events with `users` more users, each of EVENTS random items a minute apart, and their sequences of items.

    `frame` [user_id, item_id, kind, at, ...] in time order; other columns of the planted events are missing. Items are
    drawn uniformly, so that a sequence says nothing about items that belong together.
    """
    items = frame["item_id"].unique()
    sequences = [rng.choice(items, EVENTS).tolist() for _ in range(users)]
    begins = rng.choice(frame["at"].to_numpy(np.int64), users)
    kind = frame["kind"].mode().iloc[0]
    rows = [
        (f"canary-{user}", item, kind, int(begins[user]) + 60_000 * step)
        for user, sequence in enumerate(sequences)
        for step, item in enumerate(sequence)
    ]
    planted = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"])
    whole = pd.concat([frame, planted]).sort_values("at", kind="stable", ignore_index=True)
    return whole, sequences


def returned_canaries(histories: Histories, sequences: list[list[int]], run: int = 4) -> int:
    """How many canaries come back: `run` of their items (indices), one after another, stand in a history."""
    seen: set[tuple[int, ...]] = set()
    for start, stop in zip(histories.starts[:-1].tolist(), histories.starts[1:].tolist(), strict=True):
        items = histories.items[start:stop].tolist()
        seen.update(tuple(items[place : place + run]) for place in range(len(items) - run + 1))
    return sum(
        any(tuple(sequence[place : place + run]) in seen for place in range(len(sequence) - run + 1))
        for sequence in sequences
    )


def exposure(synthesizer: Synthesizer, sequences: list[list[int]], rng: np.random.Generator) -> float | None:
    """The mean exposure of canaries (lists of item indices) in bits: log2 of the alternatives over the canary's rank.

    Alternatives are ALTERNATIVES random sequences that were not planted (Carlini et al., USENIX Security 2019). 1 on
    average where nothing was memorized, log2(ALTERNATIVES + 1) at most. None where the generator has no likelihood.
    """
    items = len(synthesizer.vocabulary)
    others = rng.integers(0, items, (ALTERNATIVES, len(sequences[0]))).tolist()
    planted, random = (synthesizer.log_prob(histories_of(rows)) for rows in (sequences, others))
    if planted is None or random is None:
        return None
    ranks = 1 + (random[None] > planted[:, None]).sum(axis=1)
    return float(np.log2((ALTERNATIVES + 1) / ranks).mean())


def histories_of(sequences: list[list[int]]) -> Histories:
    """Histories of item indices, a minute apart, of the first kind, without values."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    events = int(starts[-1])
    items = np.array([item for sequence in sequences for item in sequence], np.int32)
    at = 1_600_000_000_000 + 60_000 * np.arange(events, dtype=np.int64)
    zeros = np.zeros(events, np.int32)
    return Histories(starts, items, zeros, at, np.full(events, np.nan, np.float32), zeros)
