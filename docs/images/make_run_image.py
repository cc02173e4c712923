"""Draws docs/images/run.svg: the live view of a real `coldstream run`, as a terminal shows it.

    .venv/bin/python docs/images/make_run_image.py --state /tmp/demo --seconds 420

Starts the system in a pseudo-terminal, keeps the last complete frame in which events arrive, then stops the system
with Ctrl-C.
"""

import argparse
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

COLUMNS: Final = 112
ROWS: Final = 60
TARGET: Final = Path(__file__).with_name("run.svg")
REDRAW: Final = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
"""How rich clears the previous frame before it draws the next."""
FONT_FACE: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Fonts from the network: a picture in a repository loads none."""
FRESH: Final = "<= "


def record(command: list[str], seconds: float) -> str:
    """The terminal output of a command that is interrupted after `seconds`; later output is not kept."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    output = bytearray()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if select.select([leader], [], [], 0.5)[0]:
            output += os.read(leader, 65536)
            del output[: -4 * 1024 * 1024]
    process.send_signal(signal.SIGINT)
    while process.poll() is None:
        if select.select([leader], [], [], 0.5)[0]:
            try:
                os.read(leader, 65536)
            except OSError:
                break
    process.wait()
    return output.decode("utf-8", "replace")


def last_frame(output: str) -> str:
    """The last frame that was drawn completely and shows a measured freshness, so events were arriving."""
    frames = REDRAW.split(output)[1:-1]
    return next((frame for frame in reversed(frames) if FRESH in frame), frames[-1]).strip("\r\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", required=True, help="an empty folder for the system's state")
    parser.add_argument("--seconds", type=float, default=420, help="when the picture is taken")
    arguments = parser.parse_args()
    coldstream = str(Path(sys.executable).with_name("coldstream"))
    frame = last_frame(record([coldstream, "--state", arguments.state, "run"], arguments.seconds))
    console = Console(width=COLUMNS, record=True, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(
        Text(Text.from_ansi(frame.replace("\r", "")).plain)
    )  # plain: one element a line keeps borders aligned
    TARGET.write_text(FONT_FACE.sub("", console.export_svg(title="make run")), "utf-8")


if __name__ == "__main__":
    main()
