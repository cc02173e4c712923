"""`coldstream tune`: tune hyperparameters on a file of events or a named data set, and write them to a preset."""

from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from models.domains import tuning
from models.domains.preset import TunedParams
from models.evaluation.studies import completed_trials, new_study
from models.recommenders.registry import spec, tuned_params
from serving.commands.offline_evaluation import EvaluationRequest, names_of, prepared
from serving.commands.output import REPORT
from serving.commands.progress import training


def tune(request: EvaluationRequest, study: Path, preset: Path) -> dict[str, Any]:
    """Tune each requested recommender; returns the results by name, the preset's path, and the cleaning report.

    A study is named after data, split and seed: the same command resumes it, another data set does not. The preset is
    written after each recommender.

    Raises:
        ColdstreamError: a requested data set or recommender does not exist, or there are too few events.
    """
    names = names_of(request)
    results: dict[str, Any] = {}
    with training() as progress:
        source, _, experiment = prepared(request, progress)
        data = f"{source.fingerprint()}/{request.split}/{request.seed}/{request.sample}/{request.min_count}"
        data += f"/{experiment.masked}"
        data += f"/{experiment.plan.weights}/{experiment.plan.recency_ms}"
        if experiment.catalogue is not None:  # other items have other vectors, so they need another study
            data += f"/{experiment.catalogue.fingerprint()}"
        for name in names:
            known = spec(name).space_id(experiment.situation)
            title = f"{name}-{blake2b((data + known).encode(), digest_size=6).hexdigest()}"
            search_study = new_study(request.seed, study, title)
            experiment.search(name, search_study)
            best, trials = search_study.best_trial, completed_trials(search_study)
            params, value = tuned_params(name, best.user_attrs["params"]), round(search_study.best_value, 6)
            tuned = TunedParams(
                params=params,
                ndcg=value,
                trials=trials,
                study=title,
                source=source.name,
                protocol=str(experiment.plan.protocol),
            )
            tuning.put(preset, name, tuned)
            results[name] = {"ndcg@10": value, "trials": trials, "study": title, "params": params}
    return results | {"preset": str(preset), REPORT: msgspec.to_builtins(source.report)}
