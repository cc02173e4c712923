"""`coldstream broker`, `api`, `consumer` and `archive`: one process of the system, alone."""

import typer


def broker(ctx: typer.Context) -> None:
    """Run only the embedded Kafka broker."""
    from serving.process.state_folder import prepare_state_folder
    from stream.broker import main

    prepare_state_folder(ctx.obj.state_path)
    raise typer.Exit(main([str(ctx.obj.state_path / "kafka"), str(ctx.obj.kafka_port)]))


def api(ctx: typer.Context) -> None:
    """Run only the HTTP API."""
    from serving.process.environment import apply_part_defaults
    from serving.process.state_folder import prepare_state_folder

    prepare_state_folder(ctx.obj.state_path)
    apply_part_defaults()
    from serving.http.app import main

    raise typer.Exit(main(ctx.obj))


def consumer(ctx: typer.Context) -> None:
    """Run only the consumer, which turns events into features."""
    from serving.consume.app import main
    from serving.process.state_folder import prepare_state_folder

    prepare_state_folder(ctx.obj.state_path)
    raise typer.Exit(main(ctx.obj))


def archive(ctx: typer.Context) -> None:
    """Run only the archive process, which writes events to Parquet."""
    from serving.consume.archiver import main
    from serving.process.state_folder import prepare_state_folder

    prepare_state_folder(ctx.obj.state_path)
    raise typer.Exit(main(ctx.obj))
