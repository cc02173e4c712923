"""Every Prometheus metric, defined once; each process exposes those that it changes. `docs/metrics.md` lists them."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from stream.metric_values import keep_in_memory

LATENCY_BUCKETS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
FAST_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
SHARE_BUCKETS: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COUNT_BUCKETS: Final = (1, 10, 50, 100, 500, 1_000, 5_000, 10_000, 20_000, 50_000)

keep_in_memory()  # before the first metric is created
registry: Final = CollectorRegistry()

events_applied = Counter(
    "coldstream_events_applied",
    "Events applied to the features, by kind and domain",
    ["kind", "domain"],
    registry=registry,
)
late_events = Counter(
    "coldstream_late_events",
    "Live events more than `late_ms` older than their user's newest: they enter no feature",
    ["domain"],
    registry=registry,
)
records_accepted = Counter(
    "coldstream_records_accepted", "Records acknowledged through the API", ["type"], registry=registry
)
records_skipped = Counter(
    "coldstream_records_skipped", "Control records that a process cannot apply", ["topic"], registry=registry
)
records_rejected = Counter(
    "coldstream_records_rejected", "Records that the API rejected, by reason", ["reason"], registry=registry
)
dead_letters = Counter(
    "coldstream_dead_letters", "Events sent to the dead-letter queue, by reason", ["reason"], registry=registry
)
event_to_feature = Histogram(
    "coldstream_event_to_feature_seconds",
    "From the broker's timestamp of an event until its features are written",
    buckets=LATENCY_BUCKETS,
    registry=registry,
)
event_to_feature_recent = Gauge(
    "coldstream_event_to_feature_recent_seconds",
    "The same time over the last five minutes, by quantile, rounded up to a bucket of the histogram; NaN: no event",
    ["quantile"],
    registry=registry,
)
event_to_recommendation = Histogram(
    "coldstream_event_to_recommendation_seconds",
    "From the broker's timestamp of an event until API answers reflect it",
    buckets=LATENCY_BUCKETS,
    registry=registry,
)
consumer_lag = Gauge(
    "coldstream_consumer_lag", "Events not yet applied to the features, by partition", ["partition"], registry=registry
)
events_forwarded = Counter(
    "coldstream_events_forwarded",
    "Events that a producer's partitioner had put into another partition than their user's, forwarded there",
    registry=registry,
)
partition_stopped = Gauge(
    "coldstream_partition_stopped",
    "1 while a partition waits at a batch that cannot be read, by partition",
    ["partition"],
    registry=registry,
)
log_replaced = Gauge(
    "coldstream_log_replaced", "1 if the log is not the one that was read before: nothing is read", registry=registry
)
batch_events = Histogram("coldstream_batch_events", "Events in a micro-batch", buckets=COUNT_BUCKETS, registry=registry)
batch_seconds = Histogram(
    "coldstream_batch_seconds", "Time per micro-batch, by stage", ["stage"], buckets=LATENCY_BUCKETS, registry=registry
)
lookup_seconds = Histogram(
    "coldstream_lookup_seconds", "Look-up latency by stage", ["stage"], buckets=FAST_BUCKETS, registry=registry
)
recommendations = Counter(
    "coldstream_recommendations", "Recommendation lists returned, by reason", ["reason", "domain"], registry=registry
)
rules_applied = Counter(
    "coldstream_rules_applied",
    "Recommendation lists that a rule changed; `other` beyond 100 rules",
    ["rule"],
    registry=registry,
)
rules_active = Gauge("coldstream_rules_active", "Active rules, by domain", ["domain"], registry=registry)
rules_rejected = Counter("coldstream_rules_rejected", "Invalid rules, by source", ["source"], registry=registry)
explored_items = Counter("coldstream_explored_items", "Items placed by exploration", ["domain"], registry=registry)
category_floor_unmet = Counter(
    "coldstream_category_floor_unmet",
    "Recommendation lists below a category minimum",
    ["domain", "floor"],
    registry=registry,
)
open_streams = Gauge("coldstream_open_streams", "Open live recommendation streams", registry=registry)
streams_refused = Counter(
    "coldstream_streams_refused", "Live streams refused because of a limit", ["limit"], registry=registry
)
open_connections = Gauge("coldstream_open_connections", "Open connections of the API's port", registry=registry)
connections_ended = Counter(
    "coldstream_connections_ended", "Connections that the API ended, by reason", ["reason"], registry=registry
)
store_errors = Counter("coldstream_store_errors", "Online store errors", ["operation"], registry=registry)
store_failing = Gauge(
    "coldstream_store_failing", "1 while calls of the online store fail or its file is damaged", registry=registry
)
release_info = Gauge("coldstream_release_info", "1 for the current release", ["domain", "release"], registry=registry)
release_age = Gauge("coldstream_release_age_seconds", "Age of the current release", ["domain"], registry=registry)
release_created = Gauge(
    "coldstream_release_created_timestamp_seconds",
    "When the current release was trained (Unix time)",
    ["domain"],
    registry=registry,
)
release_quality = Gauge(
    "coldstream_release_quality", "Held-out metrics of the current release", ["domain", "metric"], registry=registry
)
releases_rejected = Counter(
    "coldstream_releases_rejected", "Releases that could not be loaded, by reason", ["reason"], registry=registry
)
archived_rows = Counter("coldstream_archived_rows", "Rows written to the archive", ["topic"], registry=registry)
archive_errors = Counter("coldstream_archive_errors", "Failed writes of the archive", registry=registry)
archive_damaged_parts = Counter(
    "coldstream_archive_damaged_parts", "Damaged archive parts that were set aside", registry=registry
)
archive_lag = Gauge("coldstream_archive_lag", "Messages not yet archived", registry=registry)
training_duration = Gauge(
    "coldstream_training_duration_seconds", "Duration of the last training run", ["domain"], registry=registry
)
training_last_success = Gauge(
    "coldstream_training_last_success_timestamp_seconds",
    "Time of the last successful training run (Unix time)",
    ["domain"],
    registry=registry,
)
training_failures = Counter("coldstream_training_failures", "Training runs that failed", ["domain"], registry=registry)
gate_passed = Counter("coldstream_gate_passed", "Candidates that passed the gate", ["domain"], registry=registry)
gate_failed_checks = Counter(
    "coldstream_gate_failed_checks",
    "Failed gate checks of candidates, by check",
    ["domain", "check"],
    registry=registry,
)
stability_index = Gauge(
    "coldstream_drift_stability_index",
    "Population stability index of new events against the training data",
    ["domain", "feature"],
    registry=registry,
)
drift_hit_rate = Gauge(
    "coldstream_drift_hit_rate",
    "Share of next items in the current release's top 10, on held-out or new events",
    ["domain", "events"],
    registry=registry,
)
events_since_release = Gauge(
    "coldstream_events_since_release", "Events newer than the current release", ["domain"], registry=registry
)
drift_detected = Counter(
    "coldstream_drift_detected", "Training runs started by drift, by reason", ["domain", "reason"], registry=registry
)
impressions_pending = Gauge(
    "coldstream_impressions_pending", "Impressions that may still be clicked", registry=registry
)
impressions_evicted = Counter(
    "coldstream_impressions_evicted",
    "Impressions dropped before a click because the join buffer was full",
    registry=registry,
)
arm_traffic_share = Gauge(
    "coldstream_arm_traffic_share",
    "Share of users (canary) or of look-ups (shadow), by arm",
    ["domain", "arm"],
    registry=registry,
)
arm_recommendations = Counter(
    "coldstream_arm_recommendations",
    "Recommendation lists during a canary or shadow, by arm",
    ["domain", "arm"],
    registry=registry,
)
arm_errors = Counter(
    "coldstream_arm_errors", "Failed look-ups during a canary or shadow, by arm", ["domain", "arm"], registry=registry
)
arm_ranking_seconds = Histogram(
    "coldstream_arm_ranking_seconds",
    "Time of one ranking during a canary or shadow, by arm",
    ["domain", "arm"],
    buckets=FAST_BUCKETS,
    registry=registry,
)
arm_impressions = Gauge(
    "coldstream_arm_impressions", "Impressions since the canary started, by arm", ["domain", "arm"], registry=registry
)
arm_clicked_impressions = Gauge(
    "coldstream_arm_clicked_impressions",
    "Clicked impressions since the canary started, by arm",
    ["domain", "arm"],
    registry=registry,
)
canaries_ended = Counter(
    "coldstream_canaries_ended",
    "Canaries ended by this process, by action and reason",
    ["domain", "action", "reason"],
    registry=registry,
)
shadow_dropped = Counter(
    "coldstream_shadow_dropped",
    "Look-ups that the shadow skipped because its queue was full",
    ["domain"],
    registry=registry,
)
shadow_overlap = Histogram(
    "coldstream_shadow_overlap",
    "Share of the top 10 items that the shadow and the returned list have in common",
    ["domain"],
    buckets=SHARE_BUCKETS,
    registry=registry,
)
shadow_evaluated = Counter(
    "coldstream_shadow_evaluated", "Shadow lists whose click window has passed", ["domain"], registry=registry
)
shadow_hits = Counter(
    "coldstream_shadow_hits",
    "Evaluated lists with an item that the user chose, by arm",
    ["domain", "arm"],
    registry=registry,
)
