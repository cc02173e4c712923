"""The command line: mounts the commands, each from a file of its own in `serving.commands`.

Commands import heavy packages when they run, so that `--help` is instant.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

import typer

from serving.commands import (
    bench,
    dead_letters,
    doctor,
    drift,
    evaluate,
    experiment,
    features,
    import_events,
    new_epoch,
    options,
    presets,
    processes,
    recommend,
    releases,
    replay,
    reset,
    rules,
    run,
    settings,
    status,
    synthesize,
    topics,
    train,
    tune,
    up,
)
from serving.plain_text import lines_of
from serving.setting_secrets import mask_text
from stream.errors import ColdstreamError

COMMANDS: Final[dict[str, dict[str, Callable[..., None]]]] = {
    "Run the system": {
        "up": up.up,
        "run": run.run,
        "status": status.status,
        "doctor": doctor.doctor,
        "settings": settings.settings,
        "new-epoch": new_epoch.new_epoch,
        "reset": reset.reset,
    },
    "Events and recommendations": {
        "import": import_events.import_events,
        "replay": replay.replay,
        "recommend": recommend.recommend,
    },
    "Training": {
        "train": train.train,
        "tune": tune.tune,
        "drift": drift.drift,
    },
    "Synthetic events": {
        "synthesize": synthesize.synthesize,
        "probe": synthesize.probe,
    },
    "Run one process": {
        "broker": processes.broker,
        "topics": topics.topics,
        "api": processes.api,
        "consumer": processes.consumer,
        "archive": processes.archive,
    },
}
"""Commands by the heading of `--help` that lists them."""
GROUPS: Final = {
    "evaluate": ("Training", evaluate.app),
    "experiment": ("Synthetic events", experiment.app),
    "releases": ("Training", releases.app),
    "presets": ("Training", presets.app),
    "features": ("Events and recommendations", features.app),
    "rules": ("Events and recommendations", rules.app),
    "dead-letters": ("Events and recommendations", dead_letters.app),
    "bench": ("Run the system", bench.app),
}

FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk says, a quota, and the limit of a file's size."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.callback()(options.global_options)
for heading, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=heading)(command)
for name, (heading, group) in GROUPS.items():
    app.add_typer(group, name=name, rich_help_panel=heading)


def main() -> None:
    """The console script: an expected error is one line, not a traceback."""
    secrets: list[str] = []  # of the settings, once they are read
    try:
        app(obj=secrets)
    except ColdstreamError as error:
        _fail(mask_text(str(error), secrets))
    except OSError as error:
        if error.errno not in FULL:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python writes the rest of the output when it ends
        where = f"{error.filename}" if error.filename else "the output"
        _fail(f"{where} cannot be written: {error.strerror}; free space, or write elsewhere")


def _fail(sentence: str) -> NoReturn:
    with contextlib.suppress(OSError):  # standard error is full too
        typer.echo(f"{typer.style('error', typer.colors.RED)}: {lines_of(sentence)}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
