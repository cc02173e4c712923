"""A scorer of the full catalogue that gives items without events scores of their own."""

import numpy as np
from scipy import sparse

from models.arrays import Float32
from models.data.batch import Batch
from models.data.vocabulary import Vocabulary
from models.recommenders.base import Scorer, shares


class NewItemScorer(Scorer):
    """Known items have (1 - share) of the probability, as `base` spreads it; new items the rest, by `columns`.

    `base` scores the vocabulary, in which new items follow the known ones; `columns` float32 [known, new]: what an
    event of a known item adds to the score of a new one. An event weighs `decay` times what the event after it weighs.
    """

    def __init__(self, name: str, base: Scorer, columns: Float32, *, decay: float, share: float) -> None:
        self.name, self.vocabulary = name, base.vocabulary
        self.base, self.columns, self.decay, self.share = base, columns, decay, share

    @property
    def known(self) -> int:
        """The number of items with events."""
        return len(self.columns)

    def new_scores(self, batch: Batch) -> Float32:
        """float32 [batch, new items]: sums of `columns` over a history's events."""
        return history_matrix(batch, self.known, self.decay) @ self.columns

    def score(self, batch: Batch) -> Float32:
        scores = np.array(self.base.probabilities(batch), np.float32)
        scores[:, self.known :] = 0.0
        known, new = shares(scores), shares(self.new_scores(batch))
        some = new.any(axis=1, keepdims=True)
        scores = known * np.where(some, np.float32(1 - self.share), np.float32(1.0))
        scores[:, self.known :] = np.float32(self.share) * new
        return scores


class ItemTableScorer(Scorer):
    """The score of a known item is the sum over a history's events of weight(event) * `table`[item of the event, item].

    `table` float32 [known, known]; `prior` float32 [items]: see `models.recommenders.sparse`. New items have none.
    """

    name = "item-table"

    def __init__(self, vocabulary: Vocabulary, table: Float32, prior: Float32, decay: float) -> None:
        self.vocabulary, self.table, self.prior, self.decay = vocabulary, table, prior, decay

    def score(self, batch: Batch) -> Float32:
        known = len(self.table)
        scores = np.tile(self.prior, (len(batch), 1))
        scores[:, :known] += history_matrix(batch, known, self.decay) @ self.table
        return scores


def history_matrix(batch: Batch, known: int, decay: float) -> sparse.csr_matrix:
    """float32 [batch, known items]: the weight of each event of a history at its item."""
    weights = batch.event_weights(decay)
    rows, columns = np.nonzero((batch.items > 0) & (batch.items <= known))
    places = batch.items[rows, columns] - 1
    return sparse.csr_matrix((weights[rows, columns], (rows, places)), (len(batch), known))
