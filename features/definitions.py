"""What Feast is told: entities, one set of views per domain, push sources, and a feature service per domain.

Features are few and wide: Feast's SQLite store keeps one row per feature, so a user's state is one JSON document
instead of thirty columns (docs/decisions/0003-wide-features.md has the measurements).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource
from feast.types import Bytes, String
from feast.value_type import ValueType

ACTIVITY_FEATURES: Final = ("state",)
TIMESTAMP: Final = "event_timestamp"

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="who acts")
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="what is acted on")
partition = Entity(
    name="partition", join_keys=["partition"], value_type=ValueType.STRING, description="topic/partition"
)


def activity_view(domain: str, offline: Path) -> FeatureView:
    """A user's state in a domain, as the JSON bytes of `features.activity.Activity`."""
    return _view(f"{domain}_activity", user, ACTIVITY_FEATURES, Bytes, offline)


def profile_view(domain: str, offline: Path) -> FeatureView:
    """The newest word on a user, as the JSON of `stream.events.User`."""
    return _view(f"{domain}_profile", user, ("record",), String, offline)


def item_view(domain: str, offline: Path) -> FeatureView:
    """The newest word on an item, as the JSON of `stream.events.Item`."""
    return _view(f"{domain}_item", item, ("record",), String, offline)


def popularity_view(offline: Path) -> FeatureView:
    """One partition's popularity row, as the JSON bytes of `features.popularity.PartitionPopularity`."""
    return _view("popularity", partition, ("row",), Bytes, offline)


def definitions(domains: Sequence[str], offline: Path) -> list[Entity | FeatureView | FeatureService]:
    """Everything to apply; `offline` is the folder of the Parquet files behind the push sources."""
    views: list[FeatureView] = [popularity_view(offline)]
    services: list[FeatureService] = []
    for domain in domains:
        mine = [activity_view(domain, offline), profile_view(domain, offline)]
        views += [*mine, item_view(domain, offline)]
        services.append(FeatureService(name=domain, features=mine))
    return [user, item, partition, *views, *services]


def _view(name: str, entity: Entity, features: Sequence[str], dtype: object, offline: Path) -> FeatureView:
    batch = FileSource(name=f"{name}_file", path=str(offline / f"{name}.parquet"), timestamp_field=TIMESTAMP)
    return FeatureView(
        name=name,
        entities=[entity],
        schema=[Field(name=one, dtype=dtype) for one in features],
        source=PushSource(name=f"{name}_push", batch_source=batch),
        online=True,
    )
