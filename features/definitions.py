"""Definitions of the Feast registry: entities, a set of feature views per domain, and a feature service per domain.

Features are few and wide: Feast's SQLite store keeps one row per feature, so a user's state is one JSON document
instead of thirty columns (docs/decisions/0003-wide-features.md has the measurements). An on-demand view decodes it into
typed features for other readers; look-ups read `state` itself.
"""

import inspect
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from feast import Entity, FeatureService, FeatureView, Field, FileSource, OnDemandFeatureView, PushSource
from feast.protos.feast.core.Transformation_pb2 import UserDefinedFunctionV2
from feast.transformation.python_transformation import PythonTransformation
from feast.types import Array, Bytes, Float64, Int64, String
from feast.value_type import ValueType

from features.activity_features import FEATURE_TYPES
from features.offline import FOLDER, TIMESTAMP

ACTIVITY_FEATURES: Final = ("state",)
FEAST_TYPES: Final[Mapping[Any, Any]] = {
    str: String,
    int: Int64,
    list[str]: Array(String),
    list[int]: Array(Int64),
    list[float]: Array(Float64),
}

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="Who acts")
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="What users act on")
partition = Entity(
    name="partition", join_keys=["partition"], value_type=ValueType.STRING, description="Topic and partition: events/3"
)


def activity_view(domain: str) -> FeatureView:
    """A user's state in a domain, as the JSON bytes of `features.activity.Activity`."""
    return _view(f"{domain}_activity", user, ACTIVITY_FEATURES, Bytes)


def profile_view(domain: str) -> FeatureView:
    """The newest profile of a user, as the JSON of `features.catalogue.ProfileRow`."""
    return _view(f"{domain}_profile", user, ("record",), String)


def item_view(domain: str) -> FeatureView:
    """The newest catalogue entry of an item, as the JSON of `features.catalogue.ItemRow`."""
    return _view(f"{domain}_item", item, ("record",), String)


def popularity_view() -> FeatureView:
    """One partition's popularity row, as the JSON bytes of `features.popularity.PartitionPopularity`."""
    return _view("popularity", partition, ("row",), Bytes)


def positions_view() -> FeatureView:
    """How far the items and profiles contain each partition of their updates: the last offset."""
    return _view("positions", partition, ("offset",), Int64)


def log_marks_view() -> FeatureView:
    """Of which log the rows are, by partition, as the JSON bytes of `stream.log_marks.LogMark`."""
    return _view("log_marks", partition, ("mark",), Bytes)


def typed_activity_view(domain: str, activity: FeatureView) -> OnDemandFeatureView:
    """The `state` of `activity` as the typed features of `features.activity_features`."""
    return OnDemandFeatureView(
        name=f"{domain}_activity_features",
        sources=[activity],
        schema=TYPED_FIELDS,
        mode="python",
        feature_transformation=SourceTransformation(decode_state, textwrap.dedent(inspect.getsource(decode_state))),
        description="A user's state, decoded into typed features; times are epoch ms",
    )


def definitions(domains: Sequence[str]) -> list[Entity | FeatureView | OnDemandFeatureView | FeatureService]:
    """All definitions of a system with these domains, for `FeatureStore.apply`."""
    views: list[FeatureView | OnDemandFeatureView] = [popularity_view(), positions_view(), log_marks_view()]
    services: list[FeatureService] = []
    for domain in domains:
        activity, profile = activity_view(domain), profile_view(domain)
        typed = typed_activity_view(domain, activity)
        views += [activity, profile, item_view(domain), typed]
        services.append(FeatureService(name=domain, features=[activity, profile, typed]))
    return [user, item, partition, *views, *services]


TYPED_FIELDS: Final = [Field(name=name, dtype=FEAST_TYPES[kind]) for name, kind in FEATURE_TYPES.items()]


def decode_state(inputs: dict[str, Any]) -> dict[str, Any]:
    """Decode `state`. The registry stores this function as source text, so a reader needs this package installed."""
    from features.activity_features import decode_states

    return decode_states(inputs["state"])


class SourceTransformation(PythonTransformation):  # type: ignore[misc]  # Feast has no types
    """A transformation that the registry stores as source text alone: Feast's own way adds a pickle of the function."""

    def to_proto(self) -> UserDefinedFunctionV2:
        return UserDefinedFunctionV2(name=self.udf.__name__, body_text=self.udf_string, mode="python")

    def infer_features(self, *_: object, **__: object) -> list[Field]:
        """The declared schema: Feast would run the function on random bytes, which are no state."""
        return TYPED_FIELDS

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> "SourceTransformation":
        return SourceTransformation(self.udf, self.udf_string)


def _view(name: str, entity: Entity, features: Sequence[str], dtype: object) -> FeatureView:
    # The path is relative to the folder of feature_store.yaml, so that a system's state can be moved.
    batch = FileSource(name=f"{name}_file", path=f"../{FOLDER}/{name}.parquet", timestamp_field=TIMESTAMP)
    return FeatureView(
        name=name,
        entities=[entity],
        schema=[Field(name=feature, dtype=dtype) for feature in features],
        source=PushSource(name=f"{name}_push", batch_source=batch),
        online=True,
    )
