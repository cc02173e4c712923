"""From the serving release's networks to the next run's: which weights may be begun with, and what is kept of a run.

Weights are kept at two stages. A run tunes from those that know nothing of its tuning window, and fits for good from
those that know nothing of its held-out window: a network is never judged by what it has seen.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from models.errors import ModelError
from models.evaluation.experiment import Experiment, Tuned, settings_of
from models.recommenders.base import Recommender
from models.recommenders.blend import members
from models.recommenders.neural import warm_start
from models.recommenders.registry import NEURAL, Situation, make
from models.releases import release_store
from models.releases.manifest import TRAINING_FILE_PREFIX, read_manifest

OWN: Final = frozenset({"recommender", "tuning", "epochs", "kinds", "fields"})
"""What a card says of a network that is not a parameter to begin with: epochs are sought anew."""
log = logging.getLogger("coldstream.trainer")


def of_release(root: Path, domain: str) -> tuple[list[warm_start.Start], dict[str, dict[str, Any]]]:
    """Weights that the serving release keeps for the next run, and its networks' parameters by name."""
    serving = release_store.current_id(root, domain)
    if serving is None:
        return [], {}
    folder = root / domain / serving
    try:
        manifest = read_manifest(folder)
        names = [name for name in manifest.extras if name.endswith(warm_start.ENDING)]
        starts = [warm_start.read(release_store.read_extra(folder, manifest, name), serving) for name in names]
    except ModelError as error:
        log.warning("%s: training begins without the serving release's weights: %s", domain, error)
        return [], {}
    own = {"recommender": manifest.recommender, **manifest.params}
    found = {str(one["recommender"]): one for one in [own, *manifest.params.get("members", [])]}
    params = {one.encoder: _params(one.encoder, found.get(one.encoder, {})) for one in starts}
    return starts, params


def _params(name: str, described: dict[str, Any]) -> dict[str, Any]:
    """The parameters on a card, where this version still knows them all."""
    params = {key: value for key, value in settings_of(name, described).items() if key not in OWN}
    try:
        make(name, params, Situation())
    except TypeError as error:
        log.warning("%s: the serving release's parameters are of another version (%s); defaults are taken", name, error)
        return {}
    return params


def fitting(situation: Situation, starts: Sequence[warm_start.Start]) -> Situation:
    """Histories as long as the weights know, where the usual length has changed by less than a fifth."""
    lengths = {one.length for one in starts}
    if len(lengths) == 1 and abs(min(lengths) - situation.length) <= 0.2 * situation.length:
        return msgspec.structs.replace(situation, length=min(lengths))
    return situation


def of_experiment(experiment: Experiment, best: Tuned, recommender: Recommender) -> dict[str, warm_start.Start]:
    """Weights of both stages by file name: the next run tunes from those that know less, and ends from the others."""
    found: dict[str, warm_start.Start] = {}
    stages = (
        ("tuning", experiment.tuned_from, [one.recommender for one in best.members or [best]]),
        ("final", experiment.held_out_from, members(recommender)),
    )
    for stage, until, made in stages:
        for one in made:
            if one is not None and one.name in NEURAL:
                found[f"{TRAINING_FILE_PREFIX}{one.name}.{stage}{warm_start.ENDING}"] = warm_start.start_of(one, until)  # type: ignore[arg-type]
    return found
