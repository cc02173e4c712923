"""Every synthesizer of the registry passes the contract suite."""

from typing import Any, ClassVar

from models.synthesizers import registry
from testing.synthesizer_contract import SynthesizerContract


class TestArticleGAN(SynthesizerContract):
    name = "article-gan"
    params: ClassVar[dict[str, Any]] = {"noise_size": 4, "units": 8, "steps": 20, "batch_size": 16}
    knows_order = False
    knows_neighbors = False


class TestGAN(SynthesizerContract):
    name = "gan"
    params: ClassVar[dict[str, Any]] = {
        "embedding_size": 24,
        "latent_size": 4,
        "length": 4,
        "known": 2,
        "batch_size": 32,
        "units": 16,
        "rounds": 2,
        "steps": 10,
        "critic_steps": 2,
        "epochs": 12,
        "learning_rate": 1.5e-2,
        "patience": 2,
    }


class TestMixture(SynthesizerContract):
    name = "mixture"
    params: ClassVar[dict[str, Any]] = {"members": ["markov", "walk"]}


class TestMarkov(SynthesizerContract):
    name = "markov"


class TestBlockModel(SynthesizerContract):
    name = "block-model"
    params: ClassVar[dict[str, Any]] = {"slices": 1}  # with drift the most probable item depends on the time
    knows_order = False


class TestKNNCopy(SynthesizerContract):
    name = "knn-copy"
    copies_users = True


class TestPopularityDraw(SynthesizerContract):
    name = "popularity-draw"
    knows_order = False
    knows_neighbors = False


class TestText(SynthesizerContract):
    name = "text"
    params: ClassVar[dict[str, Any]] = {"window": 1}


class TestWalk(SynthesizerContract):
    name = "walk"
    knows_order = False


class TestVAE(SynthesizerContract):
    name = "vae"
    params: ClassVar[dict[str, Any]] = {
        "embedding_size": 16,
        "window": 6,
        "batch_size": 16,
        "learning_rate": 0.02,
        "dropout": 0.1,
        "event_dropout": 0.0,
        "condition_dropout": 0.5,
        "epochs": 20,
        "patience": 20,
        "latent": 4,
        "cycle": 40,
        "cycles": 1,
        "draws": 32,
    }


class TestAutoregressive(SynthesizerContract):
    name = "autoregressive"
    params: ClassVar[dict[str, Any]] = {
        "embedding_size": 16,
        "window": 6,
        "batch_size": 16,
        "learning_rate": 0.02,
        "dropout": 0.1,
        "epochs": 15,
    }


def test_every_synthesizer_of_the_registry_has_its_contract_here() -> None:
    tested = {
        contract.name
        for contract in globals().values()
        if hasattr(contract, "knows_order") and "name" in vars(contract)
    }
    assert tested == set(registry.REGISTRY)
