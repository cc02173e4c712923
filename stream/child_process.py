"""Child processes that end with this process, however it ends: not even kill -9 leaves one behind (Linux)."""

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cache
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
SAFE_PATH: Final = {"PYTHONSAFEPATH": "1"}
"""Environment of Python processes whose own children never import modules of the working folder either."""


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of ours with this interpreter; `-P`: the working folder is not searched."""
    return [sys.executable, "-P", "-m", module, *arguments]


def start_child(command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process to which the kernel sends SIGTERM when this process ends; `options` are those of Popen.

    Linux sends the signal when the thread that started the child ends. A call from another thread than the main one is
    therefore handed to a thread that lives as long as this process.
    """
    if threading.current_thread() is threading.main_thread():
        return _start(command, options)
    started: Future[subprocess.Popen[bytes]] = Future()

    def start() -> None:
        try:
            started.set_result(_start(command, options))
        except BaseException as error:
            started.set_exception(error)

    _starter(os.getpid()).put(start)
    return started.result()


def end_with_parent() -> None:
    """Ask the kernel to send this process SIGTERM when its parent dies; Linux only, elsewhere it does nothing."""
    if sys.platform == "linux":
        _request_signal(os.getppid())


def _start(command: Sequence[str], options: dict[str, Any]) -> "subprocess.Popen[bytes]":
    if sys.platform != "linux":
        return subprocess.Popen(command, **options)
    _libc()  # loaded before the fork: between fork and exec no lock may be taken
    parent = os.getpid()
    return subprocess.Popen(command, preexec_fn=lambda: _request_signal(parent), **options)  # noqa: PLW1509 - see above


@cache
def _starter(_pid: int) -> "queue.SimpleQueue[Callable[[], None]]":
    """The calls that the starting thread of this process has to run; a forked process has a thread of its own."""
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run() -> None:
        while True:
            calls.get()()

    threading.Thread(target=run, name="child-starter", daemon=True).start()
    return calls


def _request_signal(parent: int) -> None:
    _libc().prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the request
        os._exit(128 + signal.SIGTERM)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
