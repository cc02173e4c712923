"""The synthesizers by name. Each is one file, imported only when its name is used."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from models.data.vocabulary import Vocabulary
from models.synthesizers.base import Synthesizer, SynthesizerContext
from models.synthesizers.conditions import SynthesisError

REGISTRY: Final[dict[str, str]] = {
    "markov": "models.synthesizers.markov:Markov",
    "autoregressive": "models.synthesizers.autoregressive:Autoregressive",
    "block-model": "models.synthesizers.block_model:BlockModel",
    "knn-copy": "models.synthesizers.knn_copy:KNNCopy",
    "popularity-draw": "models.synthesizers.popularity_draw:PopularityDraw",
    "text": "models.synthesizers.text:Text",
    "vae": "models.synthesizers.vae:VAE",
    "walk": "models.synthesizers.walk:Walk",
    "article-gan": "models.synthesizers.article_gan:ArticleGAN",
    "gan": "models.synthesizers.gan:GAN",
    "mixture": "models.synthesizers.mixture:Mixture",
}
"""Where each synthesizer is defined, by name. A new synthesizer is one line here."""


def synthesizer_class(name: str) -> type[Synthesizer]:
    """The class of a name.

    Raises:
        SynthesisError: there is no such synthesizer.
    """
    if name not in REGISTRY:
        raise SynthesisError(f"no synthesizer is called {name!r}; there are {', '.join(REGISTRY)}")
    module, _, attribute = REGISTRY[name].partition(":")
    synthesizer: type[Synthesizer] = getattr(import_module(module), attribute)
    return synthesizer


def create(name: str, params: Mapping[str, Any], context: SynthesizerContext | None = None) -> Synthesizer:
    """An unfitted synthesizer; parameters that are not given have their defaults.

    Raises:
        SynthesisError: there is no such synthesizer.
        TrainingError: there is no such parameter, or a value is out of bounds.
    """
    return synthesizer_class(name).create(params, context)


def load(name: str, params: Mapping[str, Any], vocabulary: Vocabulary, arrays: Mapping[str, Any]) -> Synthesizer:
    """The synthesizer that `describe` and `arrays` described.

    Raises:
        SynthesisError: there is no such synthesizer.
        TrainingError: a parameter does not exist or is out of bounds.
        KeyError: an array is missing.
    """
    return synthesizer_class(name).load(params, vocabulary, arrays)
