"""The installed command `coldstream`: it never imports a module of the working folder, whatever PYTHONPATH says."""

import os
import sys


def main() -> None:
    """Leave the working folder out of this process and its children, then run the command line."""
    try:
        leave_out(os.getcwd())
    except FileNotFoundError:
        sys.exit("error: the working folder was deleted; change to another one (cd)")
    from serving.cli import main as command_line

    command_line()


def leave_out(folder: str) -> None:
    """Drop `folder` from the module search path of this process and of its children.

    An empty entry of PYTHONPATH, as in `export PYTHONPATH=$PYTHONPATH:/lib`, is the working folder too. A checkout of
    this project, from which it runs, stays.
    """
    folder = os.path.realpath(folder)
    if folder == os.path.dirname(os.path.dirname(os.path.realpath(__file__))):
        return
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != folder]
    entries = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in entries if os.path.realpath(entry) != folder]
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)


if __name__ == "__main__":
    main()
