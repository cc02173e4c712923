"""Lines that TensorFlow's native code writes to the terminal, whatever its log level is, are dropped.

`python native_output.py` is the process that reads lines and passes on all others. It outlives its parent by a moment,
so that the last words of a process that crashes arrive.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

NOISE: Final = re.compile(
    r"All log messages before absl::InitializeLog|^[IWE]\d{4} |^\s*$|^[IW]\d+ \d+:\d+"
    r"|^(WARNING|INFO|ERROR):(tensorflow|absl|tf2onnx)[:.]|^\d{4}-\d\d-\d\d \S+: [IWE] \S+\.cc:\d+\]"
)
"""Such a line: of absl, of TensorFlow before and after absl, of their Python loggers; and lines without text."""
STDERR: Final = 2
END_WITHIN_S: Final = 2.0


@contextlib.contextmanager
def without_native_lines() -> Iterator[None]:
    """Within the block, what native code writes to standard error is filtered; Python's own output is not touched."""
    original = os.dup(STDERR)
    command = [sys.executable, "-I", "-S", __file__]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=original, start_new_session=True)
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), STDERR)
    reader.stdin.close()
    python_stderr = sys.stderr
    if _is_descriptor(python_stderr):  # a terminal stays one for progress bars
        sys.stderr = os.fdopen(os.dup(original), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    try:
        yield
    finally:
        if sys.stderr is not python_stderr:
            sys.stderr.close()
            sys.stderr = python_stderr
        python_stderr.flush()
        os.dup2(original, STDERR)
        os.close(original)
        with contextlib.suppress(subprocess.TimeoutExpired):  # another process may still hold the pipe
            reader.wait(END_WITHIN_S)


def pass_on(lines: Iterator[bytes]) -> None:
    """Write all lines but noise to standard error."""
    for line in lines:
        if not NOISE.search(line.decode("utf-8", "replace")):
            os.write(STDERR, line)


def _is_descriptor(stream: object) -> bool:
    try:
        return stream.fileno() == STDERR  # type: ignore[attr-defined,no-any-return] # a test may replace it
    except (AttributeError, OSError, ValueError):
        return False


if __name__ == "__main__":
    pass_on(iter(sys.stdin.buffer.readline, b""))
