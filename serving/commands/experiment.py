"""`coldstream experiment`: do synthetic events help, and where? Each experiment is a file of its own."""

import typer

from serving.commands import experiment_augmentation, experiment_cold_start, experiment_new_items

app = typer.Typer(no_args_is_help=True, help="Prove on your events where synthetic events help, and where they do not.")
app.command("cold-start")(experiment_cold_start.cold_start)
app.command("augmentation")(experiment_augmentation.augmentation)
app.command("new-items")(experiment_new_items.new_items)
