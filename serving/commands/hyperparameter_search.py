"""`coldstream tune`: parameters sought on a file of events, or on a data set by name, and written as a preset."""

from hashlib import blake2b
from pathlib import Path
from typing import Any

from models.domains import tuning
from models.domains.preset import TunedParams
from models.evaluation.studies import completed_trials, new_study
from models.recommenders.registry import spec, tuned_params
from serving.commands.offline_evaluation import EvaluationRequest, names_of, prepared
from serving.commands.progress import training


def tune(asked: EvaluationRequest, study: Path, preset: Path) -> dict[str, Any]:
    """Tune each recommender that is asked for; what was found, by name.

    A study is named after data, split and seed, so that the same command adds to it and another data set does not. The
    preset is written after each recommender.

    Raises:
        ColdstreamError: something asked for does not exist, or the events are too few.
    """
    names = names_of(asked)
    found: dict[str, Any] = {}
    with training() as progress:
        source, _, experiment = prepared(asked, progress)
        data = f"{source.fingerprint()}/{asked.split}/{asked.seed}/{asked.sample}/{asked.min_count}/{experiment.masked}"
        data += f"/{experiment.plan.weights}/{experiment.plan.recency_ms}"
        if experiment.catalogue is not None:  # other items, other vectors: another study
            data += f"/{experiment.catalogue.fingerprint()}"
        for name in names:
            known = spec(name).space_id(experiment.situation)
            title = f"{name}-{blake2b((data + known).encode(), digest_size=6).hexdigest()}"
            opened = new_study(asked.seed, study, title)
            experiment.search(name, opened)
            best, trials = opened.best_trial, completed_trials(opened)
            params, value = tuned_params(name, best.user_attrs["params"]), round(opened.best_value, 6)
            tuned = TunedParams(
                params=params,
                ndcg=value,
                trials=trials,
                study=title,
                source=source.name,
                protocol=str(experiment.plan.protocol),
            )
            tuning.put(preset, name, tuned)
            found[name] = {"ndcg@10": value, "trials": trials, "study": title, "params": params}
    return found | {"preset": str(preset)}
