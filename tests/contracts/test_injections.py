"""Every arm of a cold-start experiment passes the contract suite."""

from collections.abc import Sequence
from functools import cache

from models.injection.direct import GeneratorRanking
from models.injection.injection import Injection
from models.injection.soft import SoftInjection, tabulated
from models.recommenders.base import Scorer
from models.synthesizers.base import Synthesizer
from models.synthesizers.registry import create
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
