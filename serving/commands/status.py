"""`coldstream status`: the state of a running system, read from its metrics, at no cost to its hot paths."""

from typing import TYPE_CHECKING, Any, Final

import typer

from serving.commands.options import AsJson
from serving.commands.output import print_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.process.scrape import Samples
    from serving.settings import Settings

REQUIRED: Final = ("broker", "api", "consumer", "archive")
"""The processes of every system; the trainer is optional."""
RECENT: Final = "coldstream_event_to_feature_recent_seconds"
CLUSTER_WITHIN_S: Final = 3.0


def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show which processes run, the consumer lag, the live releases and the freshness of features.

    Exits with 1 if the broker, the API, the consumer or the archive process does not answer, if the API is not ready,
    or if a partition has stopped. The trainer is optional.
    """
    figures = system_status(ctx.obj)
    print_value(figures, as_json)
    raise typer.Exit(
        bool(figures["stopped"] or figures["not ready"]) or any(figures[process] != "up" for process in REQUIRED)
    )


def system_status(settings: "Settings") -> dict[str, Any]:
    """Each process, and the figures that an operator looks at first."""
    from serving.process.scrape import PORT_SETTINGS, labeled, missing_parts, scrape, total
    from serving.process.state_folder import is_running

    samples = {process: scrape(settings, process) for process in PORT_SETTINGS}
    consumer, api = samples["consumer"], samples["api"]
    releases = (api or {}).get("coldstream_release_info", [])
    return {
        "supervised": is_running(settings),
        **_cluster(settings),
        **{process: "up" if sample is not None else "not answering" for process, sample in samples.items()},
        "not ready": missing_parts(settings),
        "events": int(total(consumer, "coldstream_events_applied_total")),
        "stopped": _stopped_partitions(api)
        | _stopped_partitions(consumer)
        | _stopped_partitions(samples["archive"])
        | _other_log(samples),
        "lag": int(total(consumer, "coldstream_consumer_lag")),
        "late events": int(total(consumer, "coldstream_late_events_total")),
        "dead letters": int(total(consumer, "coldstream_dead_letters_total")),
        "event to feature p50 s, 5 min": labeled(consumer, RECENT, quantile="0.5"),
        "event to feature p99 s, 5 min": labeled(consumer, RECENT, quantile="0.99"),
        "archived rows": int(total(samples["archive"], "coldstream_archived_rows_total")),
        "serving": {labels["domain"]: labels["release"] for labels, value in releases if value},
        "answers": int(total(api, "coldstream_recommendations_total")),
    }


def _cluster(settings: "Settings") -> dict[str, Any]:
    """Whether Kafka answers, how many brokers it has, and how many partitions lack replicas."""
    from stream.admin import cluster_state
    from stream.errors import StreamError

    try:
        state = cluster_state(settings.bootstrap, settings.kafka_security, CLUSTER_WITHIN_S)
    except StreamError:
        return {"broker": "not answering"}
    return {
        "broker": "up",
        "brokers": state.brokers,
        "under-replicated partitions": state.under_replicated,
    }


def _other_log(samples: "Mapping[str, Samples | None]") -> dict[str, str]:
    """Why no partition is read, if the log is not the one that was read before."""
    from serving.process.scrape import total

    if not any(total(sample, "coldstream_log_replaced") for sample in samples.values()):
        return {}
    return {
        "every partition": "the log is not the one that was read before: stop the system and run "
        "`coldstream features rebuild` or `coldstream new-epoch`; /readyz says what changed"
    }


def _stopped_partitions(samples: "Samples | None") -> dict[str, str]:
    """The partitions that wait at a batch that cannot be read, with the cure."""
    stopped = (samples or {}).get("coldstream_partition_stopped", [])
    return {
        labels[
            "partition"
        ]: f"a batch cannot be read; `coldstream dead-letters skip {labels['partition']}` passes over it"
        for labels, value in stopped
        if value
    }
