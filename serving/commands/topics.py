"""`coldstream topics`: create what a cluster lacks."""

import typer

from serving.settings import Settings


def topics(ctx: typer.Context) -> None:
    """Create the Kafka topics that do not exist yet."""
    from stream.admin import create_topics
    from stream.topics import topics as all_topics

    settings: Settings = ctx.obj
    created = create_topics(
        settings.bootstrap,
        settings.kafka_security,
        all_topics(settings.partitions, settings.retention_ms),
        replication=settings.replication,
        min_insync_replicas=settings.min_insync_replicas,
    )
    typer.echo(f"created: {', '.join(created) or 'none; all topics exist'}")
