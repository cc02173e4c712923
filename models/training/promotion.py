"""What becomes of a run's challengers: the gate checks them, best first, and the first that passes goes live."""

import logging
from collections.abc import Sequence
from typing import Literal

import msgspec

from models.errors import ReleaseError
from models.releases import release_store, rollout
from models.training.champion_challenger import Challenger, judge
from models.training.run import ServingRelease, TrainingResult, TrainingRun

log = logging.getLogger("coldstream.trainer")


class PromotionDecision(msgspec.Struct, frozen=True):
    """The release that serves after the decision, what happened (None: nothing), and the result of the round."""

    serving: ServingRelease | None
    action: Literal["promote", "canary", "waits"] | None
    result: TrainingResult


def decide_promotion(
    run: TrainingRun, challengers: Sequence[Challenger], serving: ServingRelease | None
) -> PromotionDecision:
    """Check the challengers, highest NDCG@10 first; the first that passes the gate goes live, the others stay ready.

    Skipped are the serving release itself, and, where recommenders were requested by name, item-kNN that was trained
    only to have a first release. Each gate report is written to the release's card. A release that fails is marked as
    refused, with the names of the failed checks.
    """
    refused: dict[str, list[str]] = {}
    outcomes: list[str] = []
    action: Literal["promote", "canary", "waits"] | None = None
    for challenger in sorted(challengers, key=lambda challenger: -challenger.manifest.metrics.get("ndcg@10", 0.0)):
        manifest = challenger.manifest
        if serving is not None and manifest.id == serving.id:
            outcomes.append(f"{manifest.recommender} serves already")
            continue
        if serving is not None and run.requested is not None and manifest.recommender not in run.requested:
            continue
        failed, outcome = _checked(run, challenger, serving)
        outcomes.append(f"{manifest.recommender} {outcome}")
        if not failed:
            action = rollout.roll_out(run.root, run.domain, manifest.id, run.canary_share)
            if action == "promote":
                serving = ServingRelease(manifest.id, run.root / run.domain / manifest.id, manifest)
            break
        refused[manifest.id] = failed
    release_store.retire(run.root, run.domain)
    result = TrainingResult(
        trained=[challenger.manifest.id for challenger in challengers],
        serving=serving.id if serving is not None else None,
        reason="; ".join(outcomes),
        metrics={challenger.manifest.recommender: challenger.manifest.metrics for challenger in challengers},
        refused=refused,
    )
    return PromotionDecision(serving, action, result)


def combined(results: Sequence[TrainingResult]) -> TrainingResult:
    """The result of several rounds of one run."""
    return TrainingResult(
        trained=[release for result in results for release in result.trained],
        serving=results[-1].serving,
        reason="; ".join(result.reason for result in results if result.reason),
        metrics={name: metrics for result in results for name, metrics in result.metrics.items()},
        refused={release: failed for result in results for release, failed in result.refused.items()},
    )


def _checked(run: TrainingRun, challenger: Challenger, serving: ServingRelease | None) -> tuple[list[str], str]:
    """The names of the checks that a challenger fails, and the outcome in words."""
    manifest = challenger.manifest
    champion = serving.folder if serving is not None else None
    try:
        report = judge(run.root, challenger, champion, run.comparison_rules)
    except ReleaseError as error:
        release_store.refuse(run.root, run.domain, manifest.id, error)
        log.error("%s: release %s is refused (%s): %s", run.domain, manifest.id, error.reason, error.detail)
        return [error.reason], f"is refused: {error.reason}"
    release_store.update_manifest(run.root, msgspec.structs.replace(manifest, gate=report))
    if report.passed:
        improvement = next((check for check in report.checks if check.name == "not-better"), None)
        return [], f"passes ({improvement.detail if improvement else report.comparison})"
    refusal = ReleaseError(",".join(report.reasons), report.detail)
    release_store.refuse(run.root, run.domain, manifest.id, refusal)
    log.warning("%s: release %s is refused: %s", run.domain, manifest.id, report.detail)
    return report.reasons, f"is refused: {report.detail}"
