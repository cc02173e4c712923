"""How many interactions the archive holds."""

import polars as pl

from features import dataset
from features.archive import parts
from serving.settings import Settings
from stream import topics


def count_interactions(settings: Settings) -> dict[str, int]:
    """Archived interactions by domain."""
    archive = settings.state_path / "archive"
    if not parts(archive, topics.EVENTS):
        return {}
    rows = dataset.scan_topic(archive, topics.EVENTS)
    counts = rows.filter(pl.col("type") == "interaction").group_by("domain").len().collect()
    return {str(domain): int(count) for domain, count in counts.iter_rows()}
