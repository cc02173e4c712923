"""Ranks of what cold users took, over the full catalogue, for every member and blend at once.

A member whose scores do not depend on the time is scored once for each history, the others once for each question.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from models.arrays import Float32, Float64, Int32, Int64
from models.data.batch import Batch, batch_histories
from models.data.vocabulary import Vocabulary
from models.evaluation.cold_users import SAME_TARGET, Episode
from models.recommenders.base import Scorer
from models.recommenders.blend import bucket_of
from models.recommenders.blend_weights import Evidence, EvidenceBuilder
from models.recommenders.top_k import top_k

BLOCK: Final = 48
"""Episodes that are scored at a time; each has up to six questions."""
SHOWN: Final = 20
"""Items of a list."""
MISSED: Final = 1 << 30
"""The rank of a target that is not in the vocabulary."""
EXCLUDED: Final = np.float32(-1.0)
"""The probability of what may not be recommended."""
Report = Callable[[float], None]


class Question(msgspec.Struct):
    """One asked event. `target`: its index in the vocabulary, -1 where it has none; `barred`: it may not be shown.

    `table` float32 [members, items]: every member's probabilities, -1 for items that may not be shown. It is written
    over by the next question.
    """

    episode: int
    number: int
    horizon: int
    target: int
    barred: bool
    bucket: int
    table: Float32


class RankedEpisodes(msgspec.Struct, frozen=True):
    """Ranks of every question and arm, and the lists that were shown at each episode's first moment.

    Per question: `episodes` int64 (index), `horizons` int64, `ranks` int32 [questions, arms] (0 is the best; an
    unknown target has `MISSED`). Questions whose target may not be shown are left out. `lists` int32
    [episodes, arms, SHOWN]: indices of the vocabulary, or None where no lists were wanted.
    """

    arms: tuple[str, ...]
    vocabulary: Vocabulary
    episodes: Int64
    horizons: Int64
    ranks: Int32
    lists: Int32 | None


def questions(
    members: Mapping[str, Scorer],
    episodes: Sequence[Episode],
    *,
    masked: bool,
    length: int,
    report: Report | None = None,
) -> Iterator[Question]:
    """Every question of the episodes, in order; with `masked` items of the known events are not recommended."""
    scorers = list(members.values())
    vocabulary = scorers[0].vocabulary
    table = np.zeros((len(scorers), len(vocabulary)), np.float32)
    timed = [number for number, scorer in enumerate(scorers) if scorer.reads_time]
    fixed = [number for number, scorer in enumerate(scorers) if not scorer.reads_time]
    for start in range(0, len(episodes), BLOCK):
        part = episodes[start : start + BLOCK]
        batch = batch_histories(
            [episode.history for episode in part], vocabulary, length, [episode.context(0) for episode in part]
        )
        buckets = bucket_of(batch.lengths)
        by_history = [scorers[number].probabilities(batch) for number in fixed]
        by_moment = [scorers[number].probabilities(_at_each_question(batch, part)) for number in timed]
        row = 0
        for place, episode in enumerate(part):
            seen = [vocabulary.index[item] for item in episode.seen if item in vocabulary.index] if masked else []
            for number, probabilities in zip(fixed, by_history, strict=True):
                table[number] = probabilities[place]
            table[:, seen] = EXCLUDED
            for number, (item, horizon) in enumerate(zip(episode.targets, episode.horizons, strict=True)):
                for member, probabilities in zip(timed, by_moment, strict=True):
                    table[member] = probabilities[row]
                    table[member, seen] = EXCLUDED
                barred = masked and item in episode.seen
                target = vocabulary.index.get(item, -1)
                yield Question(start + place, number, horizon, target, barred, int(buckets[place]), table)
                row += 1
        if report is not None:
            report(min(1.0, (start + BLOCK) / len(episodes)))


def evidence_of_episodes(
    members: Mapping[str, Scorer],
    episodes: Sequence[Episode],
    *,
    masked: bool,
    length: int,
    most: int,
    report: Report | None = None,
) -> tuple[Evidence, Int64]:
    """What weights are fitted on, and the horizon int64 [cases] of each case.

    Each question is a case, and those of an episode count as one together: the mean over its horizons. The `most` best
    items of each member compete.
    """
    builder = EvidenceBuilder(tuple(members), most)
    horizons: list[int] = []
    users = {user: code for code, user in enumerate(dict.fromkeys(episode.user_id for episode in episodes))}
    lengths = np.concatenate([[0], [1, 2, 3, 4, 5, 6, 11, 21]])  # any length of the bucket says the bucket
    for question in questions(members, episodes, masked=masked, length=length, report=report):
        episode = episodes[question.episode]
        builder.add(
            question.table,
            [question.target] if question.target >= 0 and not question.barred else [],
            target_count=1,
            length=int(lengths[question.bucket]),
            user=users[episode.user_id],
            importance=1.0 / len(episode.targets),
        )
        horizons.append(question.horizon)
    return builder.build(), np.array(horizons, np.int64)


def rank_episodes(
    members: Mapping[str, Scorer],
    blends: Mapping[str, Float64],
    episodes: Sequence[Episode],
    *,
    masked: bool,
    length: int,
    lists: bool = False,
    singles: Sequence[str] | None = None,
    report: Report | None = None,
) -> RankedEpisodes:
    """Rank each member alone (those of `singles`; None: all of them) and each blend.

    `blends`: weights by name, float64 [buckets, members], or [horizons, buckets, members] where the weights depend on
    the horizon (the last row of horizons holds for all later ones).
    """
    alone = [name for name in members if singles is None or name in singles]
    rows_alone = [place for place, name in enumerate(members) if name in alone]
    arms = (*alone, *blends)
    vocabulary = next(iter(members.values())).vocabulary
    weights = [np.asarray(rows if rows.ndim == 3 else rows[None], np.float32) for rows in blends.values()]
    shown = np.full((len(episodes), len(arms), SHOWN), -1, np.int32) if lists else None
    keys: list[tuple[int, int]] = []
    ranks: list[Int64] = []
    for question in questions(members, episodes, masked=masked, length=length, report=report):
        rows = [table[min(question.horizon, len(table)) - 1, question.bucket] for table in weights]
        scores = question.table[rows_alone]
        if rows:
            scores = np.concatenate([scores, _blended(np.array(rows), question.table)])
        if shown is not None and question.number == 0:
            shown[question.episode] = top_k(np.where(scores < 0, -np.inf, scores), SHOWN)[0]
        if not question.barred:
            keys.append((question.episode, question.horizon))
            ranks.append(ranks_of(scores, question.target))
    columns = np.array(keys, np.int64).reshape(-1, 2)
    table = np.array(ranks, np.int32).reshape(-1, len(arms))
    return RankedEpisodes(arms, vocabulary, columns[:, 0], columns[:, 1], table, shown)


def same_target(episodes: Sequence[Episode]) -> Int64:
    """int64 [episodes]: the horizon at which each episode targets the event that is the same for every k."""
    return np.array([SAME_TARGET + 1 - episode.k for episode in episodes], np.int64)


def _blended(weights: Float32, table: Float32) -> Float32:
    """float32 [blends, items]; what may not be shown stays below zero."""
    scores: Float32 = weights @ table
    return scores


def ranks_of(scores: Float32, target: int) -> Int64:
    """int64 [arms]: the number of items ahead of the target; of equal scores the lower index is ahead."""
    if target < 0:
        return np.full(len(scores), MISSED, np.int64)
    own = scores[:, target][:, None]
    better, equal = scores > own, scores[:, :target] == own
    rows = [np.count_nonzero(row) + np.count_nonzero(ties) for row, ties in zip(better, equal, strict=True)]
    return np.array(rows, np.int64)


def _at_each_question(batch: Batch, episodes: Sequence[Episode]) -> Batch:
    """The histories of a batch, once for each question of their episodes, with its context."""
    rows = np.repeat(np.arange(len(episodes)), [len(episode.targets) for episode in episodes])
    contexts = tuple(episode.context(number) for episode in episodes for number in range(len(episode.targets)))
    repeated = batch.take(rows)
    return Batch(repeated.items, repeated.kinds, repeated.gaps, repeated.kind_weights, contexts)
