"""Simulated shops: degree-corrected block models with Zipf popularity, categories, titles' likeness, drift and order.

Each shop draws its own settings, so that a ranker trained on many of them has to work at any size and density.
"""

from typing import Final

import msgspec
import numpy as np
from scipy import sparse

from models.arrays import Float64, Int32, Int64
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.tuning_space import DAY_MS
from stream.events import KIND_CODES

START_MS: Final = 1_600_000_000_000
DAYS: Final = (60, 1_500)
ITEMS: Final = (200, 2_000)
USERS: Final = (30, 800)
GROUPS: Final = (4, 40)
LENGTHS: Final = (6, 20)
"""Events of a user: those of cold users and more."""
ALIKE: Final = 50
"""Items whose titles are like an item's."""


class ShopSettings(msgspec.Struct, frozen=True):
    """How a simulated shop behaves.

    `zipf`: exponent of popularity. `loyalty`: share of a user's events in the own group. `order`: share of events on
    the successor of the item before. `half_life`: of an item's popularity around its peak, as a share of the time span.
    `clarity`: share of an item's category and title that its group decides, the rest being chance.
    """

    items: int
    users: int
    groups: int
    days: float
    zipf: float
    loyalty: float
    order: float
    half_life: float
    clarity: float


class SimulatedShop(msgspec.Struct, frozen=True):
    """A shop's events; `alike` float32 [items, items]: how alike titles are, up to 1, sparse."""

    interactions: Interactions
    alike: sparse.csr_matrix


def draw_settings(rng: np.random.Generator) -> ShopSettings:
    """Settings of one more shop."""
    items, users, groups, days = (int(np.exp(rng.uniform(*np.log(range_)))) for range_ in (ITEMS, USERS, GROUPS, DAYS))
    return ShopSettings(
        items=items,
        users=users,
        groups=groups,
        days=days,
        zipf=rng.uniform(0.5, 1.2),
        loyalty=rng.uniform(0.4, 0.95),
        order=rng.uniform(0.0, 0.4),
        half_life=float(np.exp(rng.uniform(np.log(0.02), np.log(2.0)))),
        clarity=rng.uniform(0.3, 0.95),
    )


def simulate(settings: ShopSettings, rng: np.random.Generator) -> SimulatedShop:
    """The events of a shop."""
    size = settings.items
    groups = rng.integers(settings.groups, size=size)
    popularity: Float64 = (1.0 + rng.permutation(size)).astype(np.float64) ** -settings.zipf
    peaks = rng.uniform(-0.2, 1.0, size)
    successors = _within_groups(groups, rng)
    lengths = rng.integers(LENGTHS[0], LENGTHS[1] + 1, settings.users)
    begins = np.sort(rng.uniform(0.0, 1.0, settings.users))
    own = rng.integers(settings.groups, size=settings.users)
    members = [np.flatnonzero(groups == group) for group in range(settings.groups)]
    items = [
        _history(settings, popularity, peaks, successors, members, int(group), float(begin), int(length), rng)
        for group, begin, length in zip(own, begins, lengths, strict=True)
    ]
    gaps = rng.exponential(settings.days * DAY_MS / 200, int(lengths.sum()))
    starts = np.concatenate([[0], np.cumsum(lengths)])[:-1]
    passed = np.cumsum(gaps) - np.repeat(np.cumsum(gaps)[starts], lengths)
    at = START_MS + np.repeat(begins * settings.days * DAY_MS, lengths) + passed
    vocabulary = Vocabulary.from_items([f"i{item}" for item in range(size)])
    interactions = Interactions(
        vocabulary=vocabulary,
        users=np.repeat(np.arange(settings.users), lengths),
        items=np.concatenate(items).astype(np.int32),
        kinds=np.full(int(lengths.sum()), KIND_CODES["purchase"], np.int32),
        at=at.astype(np.int64),
        categories=_noisy(groups, settings, rng),
        category_names=tuple(f"c{group}" for group in range(settings.groups)),
    )
    return SimulatedShop(interactions, _alike(groups, settings, rng))


def _history(
    settings: ShopSettings,
    popularity: Float64,
    peaks: Float64,
    successors: Int64,
    members: list[Int64],
    own: int,
    begin: float,
    length: int,
    rng: np.random.Generator,
) -> Int64:
    """int64 [length]: a user's items, each of them new to the user where the group has enough."""
    weights = popularity * np.exp2(-np.abs(peaks - begin) / settings.half_life)
    taken: list[int] = []
    for _ in range(length):
        if taken and rng.random() < settings.order and successors[taken[-1]] not in taken:
            taken.append(int(successors[taken[-1]]))
            continue
        group = own if rng.random() < settings.loyalty else int(rng.integers(len(members)))
        allowed = members[group][~np.isin(members[group], taken)]
        allowed = allowed if len(allowed) else np.arange(len(popularity))
        shares = weights[allowed] + 1e-12
        taken.append(int(rng.choice(allowed, p=shares / shares.sum())))
    return np.array(taken, np.int64)


def _within_groups(groups: Int64, rng: np.random.Generator) -> Int64:
    """int64 [items]: a successor of each item, of the same group."""
    successors = np.arange(len(groups))
    for group in range(int(groups.max()) + 1):
        own = rng.permutation(np.flatnonzero(groups == group))
        successors[own] = np.roll(own, 1)
    return successors


def _noisy(groups: Int64, settings: ShopSettings, rng: np.random.Generator) -> Int32:
    """int32 [items]: codes of categories from 1."""
    clear = rng.random(len(groups)) < settings.clarity
    codes: Int32 = (1 + np.where(clear, groups, rng.integers(settings.groups, size=len(groups)))).astype(np.int32)
    return codes


def _alike(groups: Int64, settings: ShopSettings, rng: np.random.Generator) -> sparse.csr_matrix:
    """float32 [items, items]: each item's most alike ones, in its group with the probability `clarity`."""
    size, count = len(groups), min(ALIKE, len(groups) - 1)
    order = np.argsort(groups, kind="stable")
    starts, ends = np.searchsorted(groups[order], groups), np.searchsorted(groups[order], groups, side="right")
    inside = order[(starts[:, None] + rng.random((size, count)) * (ends - starts)[:, None]).astype(np.int64)]
    clear = rng.random((size, count)) < settings.clarity
    columns = np.where(clear, inside, rng.integers(size, size=(size, count)))
    values = np.sort(rng.random((size, count)), axis=1)[:, ::-1] / np.arange(1, count + 1) ** 0.3
    rows = np.repeat(np.arange(size), count)
    matrix = sparse.csr_matrix((values.ravel().astype(np.float32), (rows, columns.ravel())), (size, size))
    matrix.data = np.minimum(matrix.data, np.float32(1.0))
    return matrix
