"""`coldstream drift`: how the serving release does on the newest events."""

import typer

from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_value


def drift(ctx: typer.Context, domain: DomainOption = None, as_json: AsJson = False) -> None:
    """Measure how far the newest events drifted from the training data, and the live release's hit rate on them."""
    import msgspec

    from serving.process.state_folder import check_state_folder
    from serving.train.drift import measure_drift

    settings = settings_of(ctx, domain=domain)
    check_state_folder(settings.state_path)
    print_value(msgspec.to_builtins(measure_drift(settings, settings.domain)), as_json)
