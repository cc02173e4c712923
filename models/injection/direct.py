"""A generator as a recommender: its expectation so many events ahead is the ranking, and no history is injected."""

from models.arrays import Float32
from models.data.batch import Batch
from models.injection.soft import expectations
from models.recommenders.base import Scorer
from models.synthesizers.base import Synthesizer


class GeneratorRanking(Scorer):
    """The probability of each item `steps` events after the known ones, by a fitted generator (arm A4)."""

    def __init__(self, synthesizer: Synthesizer, *, steps: int = 1) -> None:
        self.name = f"{synthesizer.name}-ranking"
        self.synthesizer, self.steps, self.vocabulary = synthesizer, steps, synthesizer.vocabulary

    def score(self, batch: Batch) -> Float32:
        return expectations(self.synthesizer, batch, self.steps)

    def probabilities(self, batch: Batch) -> Float32:
        return self.score(batch)

    @property
    def reads_profiles(self) -> bool:
        return "profile" in self.synthesizer.supports

    @property
    def answers_empty_histories(self) -> bool:
        return True
