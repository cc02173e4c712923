"""From the serving release's networks to the next run's: which weights it may start from, and which it keeps.

Weights are kept at two stages. A run tunes from those that know nothing of its tuning window, and does its final fit
from those that know nothing of its holdout: a network is never evaluated on what it has seen.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from models.errors import ModelError, TrainingError
from models.evaluation.experiment import Experiment, TunedRecommender
from models.recommenders.base import Recommender, TuningContext
from models.recommenders.neural import warm_start
from models.recommenders.neural.warm_start import Start
from models.recommenders.registry import create, tuned_params
from models.releases import release_store
from models.releases.manifest import TRAINING_FILE_PREFIX
from models.training.run import ServingRelease

NOT_REUSED: Final = frozenset({"recommender", "tuning", "epochs", "kinds", "fields"})
"""Entries of a card's parameters that a run does not start from; the number of epochs is tuned again."""
LENGTH_TOLERANCE: Final = 0.2

log = logging.getLogger("coldstream.trainer")


def of_serving(serving: ServingRelease | None) -> tuple[list[Start], dict[str, dict[str, Any]]]:
    """Weights that the serving release keeps for the next run, and its networks' parameters by name."""
    if serving is None or serving.manifest is None:
        return [], {}
    manifest = serving.manifest
    try:
        names = [name for name in manifest.extras if name.endswith(warm_start.ENDING)]
        raw = [release_store.read_extra(serving.folder, manifest, name) for name in names]
        starts = [warm_start.read(weights, serving.id) for weights in raw]
        whole = {"recommender": manifest.recommender, **manifest.params}
        described = {str(params["recommender"]): params for params in [whole, *manifest.params.get("members", [])]}
        return starts, {start.encoder: _params(start.encoder, described.get(start.encoder, {})) for start in starts}
    except (ModelError, ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
        log.warning("%s: training starts without the serving release's weights: %s", manifest.domain, error)
        return [], {}


def with_length_of(situation: TuningContext, starts: Sequence[Start]) -> TuningContext:
    """A situation with the history length of the weights, if the usual length has changed by less than a fifth."""
    lengths = {start.length for start in starts}
    if len(lengths) == 1 and abs(min(lengths) - situation.length) <= LENGTH_TOLERANCE * situation.length:
        return msgspec.structs.replace(situation, length=min(lengths))
    return situation


def kept_weights(experiment: Experiment, best: TunedRecommender, recommender: Recommender) -> dict[str, Start]:
    """Weights of both stages by file name: the next run tunes from `tuning` and does its final fit from `final`."""
    stages = (
        ("tuning", experiment.tuned_from, [tuned.recommender for tuned in best.members or [best]]),
        ("final", experiment.held_out_from, recommender.members),
    )
    weights: dict[str, Start] = {}
    for stage, until, recommenders in stages:
        for member in recommenders:
            start = member.weights_to_start_from(until) if member is not None else None
            if start is not None:
                weights[f"{TRAINING_FILE_PREFIX}{start.encoder}.{stage}{warm_start.ENDING}"] = start
    return weights


def _params(name: str, described: dict[str, Any]) -> dict[str, Any]:
    """The parameters on a card, if this version still knows them all."""
    params = {key: value for key, value in tuned_params(name, described).items() if key not in NOT_REUSED}
    try:
        create(name, params, TuningContext())
    except TrainingError as error:
        log.warning("%s: parameters of the serving release are of another version (%s); using defaults", name, error)
        return {}
    return params
