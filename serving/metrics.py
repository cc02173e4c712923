"""Every metric, defined once; each process exposes those it moves. `docs/metrics.md` lists them."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
QUICK: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
SHARES: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COUNTS: Final = (1, 10, 50, 100, 500, 1_000, 5_000, 10_000, 20_000, 50_000)

registry: Final = CollectorRegistry()

events = Counter("coldstream_events", "Events applied, by kind and domain", ["kind", "domain"], registry=registry)
accepted = Counter("coldstream_accepted", "Records acknowledged through the API", ["type"], registry=registry)
refused = Counter("coldstream_refused", "Records refused at the door, by reason", ["reason"], registry=registry)
dead_letters = Counter("coldstream_dead_letters", "Events set aside, by reason", ["reason"], registry=registry)
event_to_feature = Histogram(
    "coldstream_event_to_feature_seconds",
    "From the broker's time of an event to its features being written",
    buckets=SECONDS,
    registry=registry,
)
event_to_recommendation = Histogram(
    "coldstream_event_to_recommendation_seconds",
    "From the broker's time of an event to the API knowing that look-ups see it",
    buckets=SECONDS,
    registry=registry,
)
lag = Gauge("coldstream_consumer_lag", "Events not yet applied, by partition", ["partition"], registry=registry)
batch_events = Histogram("coldstream_batch_events", "Events in a micro-batch", buckets=COUNTS, registry=registry)
batch_seconds = Histogram(
    "coldstream_batch_seconds", "Time for a micro-batch", ["stage"], buckets=SECONDS, registry=registry
)
lookup_seconds = Histogram(
    "coldstream_lookup_seconds", "Look-up latency by stage", ["stage"], buckets=QUICK, registry=registry
)
answers = Counter("coldstream_answers", "Answers by reason", ["reason", "domain"], registry=registry)
rules_applied = Counter(
    "coldstream_rules_applied",
    "Answers in which a rule had a say; `other` beyond 100 rules",
    ["rule"],
    registry=registry,
)
rules_standing = Gauge("coldstream_rules", "Rules that stand, by domain", ["domain"], registry=registry)
rules_refused = Counter("coldstream_rules_refused", "Rules refused, by where from", ["source"], registry=registry)
explored = Counter("coldstream_explored", "Items shown by exploration", ["domain"], registry=registry)
unmet = Counter("coldstream_floor_unmet", "Answers that could not keep a floor", ["domain", "floor"], registry=registry)
streams = Gauge("coldstream_streams", "Live recommendation streams that are open", registry=registry)
store_errors = Counter("coldstream_store_errors", "Online store errors", ["operation"], registry=registry)
release_info = Gauge("coldstream_release", "1 for the release that serves", ["domain", "release"], registry=registry)
release_age = Gauge(
    "coldstream_release_age_seconds", "How long ago the serving release was made", ["domain"], registry=registry
)
release_created = Gauge(
    "coldstream_release_created_seconds", "When the serving release was made (Unix time)", ["domain"], registry=registry
)
release_quality = Gauge(
    "coldstream_release_quality", "Held-out metrics of the serving release", ["domain", "metric"], registry=registry
)
release_refused = Counter("coldstream_release_refused", "Releases refused, by reason", ["reason"], registry=registry)
archived = Counter("coldstream_archived_rows", "Rows written to the archive", ["topic"], registry=registry)
archive_errors = Counter("coldstream_archive_errors", "Failed writes of the archive", registry=registry)
archive_lag = Gauge("coldstream_archive_lag", "Messages not yet archived", registry=registry)
train_seconds = Gauge("coldstream_train_seconds", "Duration of the last training run", ["domain"], registry=registry)
train_success = Gauge(
    "coldstream_train_success_seconds", "When training last succeeded (Unix time)", ["domain"], registry=registry
)
train_failures = Counter("coldstream_train_failures", "Training runs that failed", ["domain"], registry=registry)
gate_passed = Counter("coldstream_gate_passed", "Candidates that passed the gate", ["domain"], registry=registry)
gate_refused = Counter(
    "coldstream_gate_refused", "Candidates that failed a check of the gate", ["domain", "reason"], registry=registry
)
drift = Gauge(
    "coldstream_drift", "Stability index between training data and new events", ["domain", "feature"], registry=registry
)
drift_hit_rate = Gauge(
    "coldstream_drift_hit_rate",
    "Next items among the serving release's best 10, held out and now",
    ["domain", "when"],
    registry=registry,
)
drift_events = Gauge(
    "coldstream_drift_events", "Events that are newer than the serving release", ["domain"], registry=registry
)
drift_seen = Counter(
    "coldstream_drift_seen", "Runs that drift began, by reason", ["domain", "reason"], registry=registry
)
lists_waiting = Gauge("coldstream_lists_waiting", "Lists shown that may still be clicked", registry=registry)
lists_forgotten = Counter(
    "coldstream_lists_forgotten", "Lists shown that memory had no room for until a click", registry=registry
)
arm_share = Gauge(
    "coldstream_arm_share", "Share of users (canary) or look-ups (shadow)", ["domain", "arm"], registry=registry
)
arm_answers = Counter("coldstream_arm_answers", "Answers during a trial, by arm", ["domain", "arm"], registry=registry)
arm_errors = Counter(
    "coldstream_arm_errors", "Answers that an arm failed to give", ["domain", "arm"], registry=registry
)
arm_seconds = Histogram(
    "coldstream_arm_seconds",
    "Time of one ranking during a trial, by arm",
    ["domain", "arm"],
    buckets=QUICK,
    registry=registry,
)
arm_lists = Gauge("coldstream_arm_lists", "Lists shown since the trial began", ["domain", "arm"], registry=registry)
arm_clicked = Gauge(
    "coldstream_arm_clicked_lists", "Lists clicked since the trial began", ["domain", "arm"], registry=registry
)
trials_ended = Counter(
    "coldstream_trials_ended", "Canaries that this process ended", ["domain", "action", "reason"], registry=registry
)
shadow_dropped = Counter(
    "coldstream_shadow_dropped", "Look-ups that the shadow had no time for", ["domain"], registry=registry
)
shadow_overlap = Histogram(
    "coldstream_shadow_overlap",
    "Share of the first 10 items that shadow and answer have in common",
    ["domain"],
    buckets=SHARES,
    registry=registry,
)
shadow_judged = Counter(
    "coldstream_shadow_judged", "Shadow answers whose window has passed", ["domain"], registry=registry
)
shadow_hits = Counter(
    "coldstream_shadow_hits", "Of those, lists of which the user took an item", ["domain", "arm"], registry=registry
)
