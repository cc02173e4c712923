"""`coldstream features`: a user's features, and a rebuild of all of them."""

import typer

from serving.commands.options import AsJson, DomainOption, UserId
from serving.commands.output import print_json, print_value

app = typer.Typer(no_args_is_help=True, help="Inspect and rebuild user features.")


@app.command()
def show(ctx: typer.Context, user: UserId, domain: DomainOption = None) -> None:
    """Show a user's features and profile, from the running API."""
    from serving.commands.client import call_api

    query = {"user_id": user} | ({"domain": domain} if domain else {})
    print_json(call_api(ctx.obj, "GET", "/v1/users/features", query=query))


@app.command()
def rebuild(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Rebuild all features from archive and event log, then swap them in. Stop the system first."""
    from serving.commands.rebuild_features import rebuild_features

    print_value(rebuild_features(ctx.obj), as_json)
