"""The configuration of a consumer that tests drive without a broker."""

from features.activity import FoldSettings
from serving.consume.events import ConsumerOptions
from stream.events import TimeLimits

OPTIONS = ConsumerOptions(
    bootstrap="127.0.0.1:1",
    security={},
    fold_settings=FoldSettings(),
    limits=TimeLimits(),
    batch_events=100,
    batch_ms=1,
    cached_users=100,
    flush_ms=60_000,
)
