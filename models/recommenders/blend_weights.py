"""The weights of a blend, fitted on evidence: where each target stands among the best items of all members.

Cases fall into groups: buckets of history lengths, or those times horizons. A group's weights are the mean, over
bootstrap bags of users, of the weights that are best in each bag (Breiman, Bagging Predictors, 1996), shrunk towards
the weights of its family of groups (short histories, long ones). Many weights are tried in one matrix product.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from scipy import sparse

from models.arrays import Bool, Float32, Float64, Int64
from models.data.batch import Batch
from models.recommenders.base import Scorer
from models.recommenders.blend import BUCKETS, bucket_of
from models.recommenders.top_k import candidates

CANDIDATES: Final = 100
"""The best items of each member, by number, that compete with a target."""
K: Final = 10
"""Weights are fitted for NDCG at this cutoff."""
SHRINK: Final = 200.0
"""A group's own weights count n / (n + SHRINK) for its n users, those of its family the rest."""
FAMILIES: Final = np.array([int(bucket > 5) for bucket in range(BUCKETS)])
"""Buckets of up to five events, and the longer ones: how a history of six reads is of no use to one of one."""
TRIES: Final = 256
BAGS: Final = 20
SPREADS: Final = (0.7, 0.7, 0.5, 0.35)
"""After a global round, each round tries weights around the best so far, spread by these standard deviations (log)."""
BLOCK: Final = 256
ENTRIES: Final = 1 << 18
"""Entries that are blended at a time, which bounds memory."""
SCORES: Final = 1 << 23
"""Scores that are computed at a time, which bounds memory."""


class Evidence(msgspec.Struct, frozen=True):
    """What weights are fitted on. A row is a target that some weights may bring into the first ten.

    `scales` float64 [members]: a member's typical tenth-best probability. `margins` float32 [entries, members]: what
    each member gives a competing item minus what it gives the target, over `scales`. `wins_ties` bool [entries]:
    whether the competing item is ahead at equal scores. `starts` int64 [rows + 1]: the entries of each row. `ahead`
    int64 [rows]: competing items that are ahead under all weights. `cases` int64 [rows]: each row's case. `ideals`
    float64 [cases]: the highest DCG. `lengths`, `users` int64 [cases], `importance` float64 [cases].
    """

    names: tuple[str, ...]
    scales: Float64
    margins: Float32
    wins_ties: Bool
    starts: Int64
    ahead: Int64
    cases: Int64
    ideals: Float64
    lengths: Int64
    users: Int64
    importance: Float64

    def __len__(self) -> int:
        return len(self.ideals)

    def of(self, cases: Int64) -> "Evidence":
        """The evidence of these cases, ascending."""
        numbers = np.full(len(self), -1, np.int64)
        numbers[cases] = np.arange(len(cases))
        rows = np.flatnonzero(numbers[self.cases] >= 0)
        sizes = np.diff(self.starts)
        kept = np.repeat(numbers[self.cases] >= 0, sizes)
        return Evidence(
            self.names,
            self.scales,
            self.margins[kept],
            self.wins_ties[kept],
            np.concatenate([[0], np.cumsum(sizes[rows])]).astype(np.int64),
            self.ahead[rows],
            numbers[self.cases[rows]],
            self.ideals[cases],
            self.lengths[cases],
            self.users[cases],
            self.importance[cases],
        )

    def only(self, names: Sequence[str]) -> "Evidence":
        """The evidence of some members; items that none of them puts ahead of the target no longer compete."""
        columns = [self.names.index(name) for name in names]
        margins = self.margins[:, columns]
        kept = (margins > 0).any(axis=1) | (self.wins_ties & (margins == 0).any(axis=1))
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts].astype(np.int64)
        return msgspec.structs.replace(
            self,
            names=tuple(names),
            scales=self.scales[columns],
            margins=margins[kept],
            wins_ties=self.wins_ties[kept],
            starts=starts,
        )

    def stacked(self, name: str, weights: Float64, names: Sequence[str]) -> "Evidence":
        """A blend as one member, and some members next to it.

        `weights` float64 [cases, members]: the blend's, for each case; rows sum to one over scaled probabilities.
        """
        of_entries = np.repeat(self.cases, np.diff(self.starts))
        scaled = (weights * self.scales).astype(np.float32)
        blended = np.zeros(len(self.margins), np.float32)
        for start in range(0, len(blended), ENTRIES):
            part = slice(start, start + ENTRIES)
            blended[part] = np.einsum("em,em->e", self.margins[part], scaled[of_entries[part]])
        columns = [self.names.index(other) for other in names]
        stacked = msgspec.structs.replace(
            self,
            names=(name, *names),
            scales=np.concatenate([[1.0], self.scales[columns]]),
            margins=np.concatenate([blended[:, None], self.margins[:, columns]], axis=1),
        )
        return stacked.only(stacked.names)

    def ndcg(self, weights: Float64) -> Float64:
        """float64 [cases]: NDCG@10 of each case under weights [members], or weights of its own [cases, members]."""
        scaled = np.atleast_2d(weights) * self.scales
        if len(scaled) == 1:
            return self.gains(scaled)[:, 0].astype(np.float64)
        of_entries = np.repeat(self.cases, np.diff(self.starts))
        scores = np.einsum("em,em->e", self.margins, scaled[of_entries].astype(np.float32))
        ahead = ((scores > 0) | ((scores == 0) & self.wins_ties)).astype(np.float32)[:, None]
        return self._ndcg_of(ahead, 0, len(self.cases))[:, 0].astype(np.float64)

    def gains(self, scaled: Float64) -> Float32:
        """float32 [cases, tries]: NDCG@10 of each case under weights float64 [tries, members] of scaled amounts."""
        table = np.ascontiguousarray(scaled.T, np.float32)
        ndcg = np.zeros((len(self), len(scaled)), np.float32)
        most = max(1, SCORES // max(1, len(scaled)))
        start = 0
        while start < len(self.cases):
            stop = max(start + 1, int(np.searchsorted(self.starts, self.starts[start] + most, side="right")) - 1)
            entries = slice(self.starts[start], self.starts[stop])
            scores = self.margins[entries] @ table
            ahead = (scores > np.where(self.wins_ties[entries], -1e-9, 0.0)[:, None]).astype(np.float32)
            ndcg += self._ndcg_of(ahead, start, stop)
            start = stop
        return ndcg

    def _ndcg_of(self, ahead: Float32, start: int, stop: int) -> Float32:
        """float32 [cases, tries] from rows `start` to `stop` and whether each of their entries is ahead."""
        bounds = self.starts[start : stop + 1] - self.starts[start]
        entries = (np.ones(len(ahead), np.float32), np.arange(len(ahead)), bounds)
        per_row = sparse.csr_matrix(entries, (stop - start, len(ahead)))
        ranks = np.minimum((per_row @ ahead).astype(np.int64) + self.ahead[start:stop, None], K)
        gains = DISCOUNTS[ranks] / self.ideals[self.cases[start:stop], None].astype(np.float32)
        shape = (len(self), stop - start)
        to_cases = sparse.csr_matrix((np.ones(stop - start), (self.cases[start:stop], np.arange(stop - start))), shape)
        summed: Float32 = to_cases.astype(np.float32) @ gains
        return summed


DISCOUNTS: Final = np.append(1 / np.log2(np.arange(2, K + 2)), 0.0).astype(np.float32)
"""The gain of a target at ranks 0 to 9, and below them."""


class EvidenceBuilder:
    """Collects evidence case by case, from what each member gives every item."""

    def __init__(self, names: Sequence[str], most: int = CANDIDATES) -> None:
        self.names, self.most = tuple(names), most
        self._margins: list[Float32] = []
        self._wins_ties: list[Bool] = []
        self._rows: list[tuple[int, int]] = []
        self._cases: list[tuple[float, int, int, float]] = []
        self._tops: list[Float32] = []

    def add(
        self,
        tables: Float32,
        targets: Sequence[int],
        *,
        target_count: int,
        length: int,
        user: int,
        barred: Sequence[int] = (),
        importance: float = 1.0,
    ) -> None:
        """Add a case: `tables` float32 [members, items] of probabilities, the `targets` that the vocabulary has, the
        `target_count` of all targets, and items that are `barred`."""
        ideal = float(DISCOUNTS[: min(max(target_count, 1), K)].sum())
        self._cases.append((ideal, length, user, importance))
        if not targets:
            return
        own = tables[:, list(targets)]
        reachable = [(tables > column[:, None]).sum(axis=1).min() < self.most + len(barred) for column in own.T]
        if not any(reachable):
            return
        allowed = np.ones(tables.shape[1], np.bool_)
        allowed[list(barred)] = False
        best = [candidates(np.where(allowed, table, np.float32(-1.0)), min(self.most, len(table))) for table in tables]
        places = np.unique(
            np.concatenate([_largest(table, part, self.most) for table, part in zip(tables, best, strict=True)])
        )
        places = places[allowed[places]]
        if not len(places):
            return
        offered = tables[:, places]
        tenth = max(0, offered.shape[1] - K)
        self._tops.append(np.partition(offered, tenth, axis=1)[:, tenth])
        for target, there in zip(targets, reachable, strict=True):
            if there and allowed[target]:
                self._add_row(offered - tables[:, target][:, None], places, target)

    def _add_row(self, margins: Float32, places: Int64, target: int) -> None:
        equal = (margins == 0).all(axis=0) & (places < target)
        surely = (margins > 0).all(axis=0) | equal
        contested = (margins > 0).any(axis=0) & ~surely & (places != target)
        if surely.sum() >= K:
            return
        self._rows.append((len(self._cases) - 1, int(surely.sum())))
        self._margins.append(margins[:, contested].T.astype(np.float32))
        self._wins_ties.append(places[contested] < target)

    def build(self) -> Evidence:
        """The evidence of all cases so far."""
        members = len(self.names)
        tops = np.array(self._tops).reshape(-1, members).astype(np.float64)
        scales = tops.mean(axis=0) if len(tops) else np.ones(members)
        scales = np.where(scales > 0, scales, 1.0)
        sizes = [len(part) for part in self._margins]
        margins = np.concatenate(self._margins) if self._margins else np.zeros((0, members), np.float32)
        cases = np.array(self._cases).reshape(-1, 4)
        rows = np.array(self._rows, np.int64).reshape(-1, 2)
        return Evidence(
            self.names,
            scales,
            (margins / scales.astype(np.float32)).astype(np.float32),
            np.concatenate(self._wins_ties) if self._wins_ties else np.zeros(0, np.bool_),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            rows[:, 1],
            rows[:, 0],
            cases[:, 0],
            cases[:, 1].astype(np.int64),
            cases[:, 2].astype(np.int64),
            cases[:, 3],
        )


def _largest(table: Float32, places: Int64, most: int) -> Int64:
    """Of `places` the `most` with the largest values of `table`."""
    if len(places) <= most:
        return places
    return places[np.argpartition(-table[places], most - 1)[:most]]


def evidence_of(
    members: Mapping[str, Scorer],
    batch: Batch,
    targets: Sequence[Sequence[str]],
    seen: Sequence[Sequence[int]] | None = None,
    users: Int64 | None = None,
) -> Evidence:
    """The evidence of every member over the cases of `batch`; `seen` are the items that each case may not be given.

    `users` int64 [cases]: who each case is of; None: each case is of another user.
    """
    builder = EvidenceBuilder(tuple(members))
    index = members[builder.names[0]].vocabulary.index
    lengths = batch.lengths
    for start in range(0, len(batch), BLOCK):
        part = batch.slice(start, start + BLOCK)
        tables = np.stack([member.probabilities(part) for member in members.values()])
        for row in range(len(part)):
            case = start + row
            builder.add(
                tables[:, row],
                [index[item] for item in targets[case] if item in index],
                target_count=len(targets[case]),
                length=int(lengths[case]),
                user=case if users is None else int(users[case]),
                barred=seen[case] if seen is not None else (),
            )
    return builder.build()


def merged(first: Evidence, second: Evidence) -> Evidence:
    """Both, `second` after `first`, about the same members; their users are different users."""
    scales = (first.scales * len(first.cases) + second.scales * len(second.cases)) / max(
        1, len(first.cases) + len(second.cases)
    )
    scales = np.where(scales > 0, scales, 1.0)
    parts = [part.margins * (part.scales / scales).astype(np.float32) for part in (first, second)]
    return Evidence(
        first.names,
        scales,
        np.concatenate(parts),
        np.concatenate([first.wins_ties, second.wins_ties]),
        np.concatenate([first.starts, second.starts[1:] + first.starts[-1]]),
        np.concatenate([first.ahead, second.ahead]),
        np.concatenate([first.cases, second.cases + len(first)]),
        np.concatenate([first.ideals, second.ideals]),
        np.concatenate([first.lengths, second.lengths]),
        np.concatenate([first.users, second.users + int(first.users.max(initial=-1)) + 1]),
        np.concatenate([first.importance, second.importance]),
    )


def fit_weights(evidence: Evidence, rng: np.random.Generator, tries: int = TRIES) -> Float64:
    """float64 [buckets, members]: the weights of each bucket of history lengths (`blend.EDGES`)."""
    return weights_by_group(evidence, bucket_of(evidence.lengths), FAMILIES, rng, tries)


def weights_by_group(
    evidence: Evidence,
    groups: Int64,
    families: Int64,
    rng: np.random.Generator,
    tries: int = TRIES,
) -> Float64:
    """float64 [groups, members]: the weights of each group; `groups` int64 [cases] says which group a case is in.

    `families` int64 [groups]: groups of one family lend each other evidence. Rows sum to one. A group without evidence
    has the weights of its family, and that has those of all cases if it has none either.
    """
    useful = np.unique(evidence.cases)
    members = len(evidence.names)
    if not len(useful):
        return np.full((len(families), members), 1 / members)
    groups, evidence = groups[useful], evidence.of(useful)
    drawn = _drawn(members, tries, rng)
    bags, gains = _bags(evidence, rng), evidence.gains(drawn)
    rows = np.zeros((len(families), members))
    for family in np.unique(families):
        of_family = np.flatnonzero(families == family)
        related = np.flatnonzero(np.isin(groups, of_family))
        related = related if len(related) else np.arange(len(groups))
        start = _bagged(bags[:, related], gains[related], drawn)
        pooled = _refined(evidence.of(related), bags[:, related], start, rng, tries)
        for group in of_family:
            inside = np.flatnonzero(groups == group)
            own = pooled
            if len(inside):
                start = _bagged(bags[:, inside], gains[inside], drawn)
                own = _refined(evidence.of(inside), bags[:, inside], start, rng, tries)
            users = len(np.unique(evidence.users[inside]))
            share = users / (users + SHRINK)
            rows[group] = share * own + (1 - share) * pooled
    rows /= evidence.scales
    rows /= rows.sum(axis=1, keepdims=True)
    return rows


def cross_validated(evidence: Evidence, rng: np.random.Generator, folds: int = 5) -> Float64:
    """float64 [cases]: NDCG@10 of each case under weights that were fitted on the other folds' users."""
    _, users = np.unique(evidence.users, return_inverse=True)
    fold = (rng.permutation(int(users.max(initial=0)) + 1) % folds)[users]
    ndcg = np.zeros(len(evidence))
    for number in range(folds):
        inside, others = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        if not len(inside):
            continue
        weights = fit_weights(evidence.of(others), rng, TRIES // 2)
        part = evidence.of(inside)
        ndcg[inside] = part.ndcg(weights[bucket_of(part.lengths)])
    return ndcg


def _drawn(members: int, tries: int, rng: np.random.Generator) -> Float64:
    """float64 [tries, members]: each member alone, all alike, and draws from the simplex."""
    fixed = np.concatenate([np.eye(members), np.full((1, members), 1 / members)])
    rest = max(0, tries - len(fixed))
    sparse_draws = rng.dirichlet(np.full(members, 0.3), rest - rest // 2)
    return np.concatenate([fixed, rng.dirichlet(np.ones(members), rest // 2), sparse_draws])


def _bags(evidence: Evidence, rng: np.random.Generator) -> Float32:
    """float32 [BAGS, cases]: how much each case counts in each bag; the cases of a user are drawn together."""
    _, users = np.unique(evidence.users, return_inverse=True)
    drawn = rng.poisson(1.0, (BAGS, int(users.max(initial=0)) + 1))
    bags: Float32 = (drawn[:, users] * evidence.importance).astype(np.float32)
    return bags


def _bagged(bags: Float32, gains: Float32, tried: Float64) -> Float64:
    """float64 [members]: the mean of the weights that are best in each bag."""
    best: Float64 = tried[(bags @ gains).argmax(axis=1)].mean(axis=0)
    return best


def _refined(evidence: Evidence, bags: Float32, start: Float64, rng: np.random.Generator, tries: int) -> Float64:
    """Weights near `start`, on a scale of ratios: small weights matter too."""
    center = start
    for spread in SPREADS:
        near = (center + 1e-3) * np.exp(rng.normal(0, spread, (tries // 2, len(center))))
        tried = np.concatenate([center[None], near / near.sum(axis=1, keepdims=True)])
        center = _bagged(bags, evidence.gains(tried), tried)
    return center
