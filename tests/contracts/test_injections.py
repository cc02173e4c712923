"""Every arm of a cold-start experiment passes the contract suite."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache

import pytest

from models.data.batch import Batch
from models.injection.controls import CroppedUsers, NeighborItems, OtherUsers, PopularityEvents, ensemble
from models.injection.direct import GeneratorRanking
from models.injection.imagination import Imagination
from models.injection.injection import Injection
from models.injection.sampled import Enumerated, Sampled
from models.injection.soft import Expected, SoftInjection, tabulated
from models.recommenders.base import Scorer
from models.recommenders.item_knn import ItemKNN
from models.recommenders.sparse import popularity_of
from models.synthesizers.base import Synthesizer
from models.synthesizers.registry import create
from models.synthesizers.stepwise import StepwiseSynthesizer
from testing.injection_contract import LOG, InjectionContract


@cache
def generator(name: str) -> Synthesizer:
    """A generator that was fitted on the suite's users."""
    synthesizer = create(name, {})
    synthesizer.fit(LOG)
    return synthesizer


class TestSoftWalk(InjectionContract):
    def build(self, recommender: Scorer, weight: Sequence[float]) -> Scorer:
        return SoftInjection(recommender, generator("walk"), steps=3, top=8, weight=weight)


class TestSoftMarkov(InjectionContract):
    def build(self, recommender: Scorer, weight: Sequence[float]) -> Scorer:
        return SoftInjection(recommender, generator("markov"), top=8, weight=weight)


class TestSoftPast(InjectionContract):
    def build(self, recommender: Scorer, weight: Sequence[float]) -> Scorer:
        return SoftInjection(recommender, generator("markov"), steps=-1, top=8, weight=weight)


class TestSoftTable(InjectionContract):
    def build(self, recommender: Scorer, weight: Sequence[float]) -> Scorer:
        return Injection(recommender, tabulated(generator("walk"), steps=2, top=8, decay=0.85), weight=weight)


class TestGeneratorRanking(InjectionContract):
    injects = False

    def build(self, recommender: Scorer, weight: Sequence[float]) -> Scorer:
        return GeneratorRanking(generator("markov"), steps=3)


class ImaginationContract(InjectionContract):
    """An arm that injects what something imagines."""

    @abstractmethod
    def imagination(self) -> Imagination:
        """What is injected."""

    def build(self, recommender: Scorer, weight: Sequence[float]) -> Scorer:
        return Injection(recommender, self.imagination(), weight=weight)


class ControlContract(ImaginationContract):
    """A control, which injects as many events as an arm."""

    def test_it_injects_as_many_events_as_the_arm(self, batch: Batch) -> None:
        imagined, control = expected().of(batch), self.imagination().of(batch)
        assert control.counts.tolist() == imagined.counts.tolist()
        assert control.shares.sum(axis=1).tolist() == pytest.approx(imagined.shares.sum(axis=1).tolist())


class TestSampled(ImaginationContract):
    def imagination(self) -> Imagination:
        return Sampled(generator("markov"), paths=4, events=2)


class TestSampledPast(ImaginationContract):
    def imagination(self) -> Imagination:
        return Sampled(generator("markov"), paths=4, events=2, before=True)


class TestEnumerated(ImaginationContract):
    def imagination(self) -> Imagination:
        synthesizer = generator("walk")
        assert isinstance(synthesizer, StepwiseSynthesizer)
        return Enumerated(synthesizer, events=2, most=8)


class TestPopularityEvents(ControlContract):
    def imagination(self) -> Imagination:
        return PopularityEvents(expected(), popularity_of(LOG, None))


class TestCroppedUsers(ControlContract):
    def imagination(self) -> Imagination:
        return CroppedUsers(expected(), LOG)


class TestNeighborItems(ControlContract):
    def imagination(self) -> Imagination:
        neighbors = ItemKNN()
        neighbors.fit(LOG)
        return NeighborItems(neighbors, expected())


class TestOtherUsers(ControlContract):
    def imagination(self) -> Imagination:
        return OtherUsers(expected(), LOG)


class TestEnsemble(InjectionContract):
    injects = False

    def build(self, recommender: Scorer, weight: Sequence[float]) -> Scorer:
        return ensemble([recommender, GeneratorRanking(generator("walk"))])


def expected() -> Imagination:
    """What the controls are matched with."""
    return Expected(generator("walk"), top=5)
