"""`coldstream up`: every part as a child process, with prefixed logs, restarts and a clean shutdown.

The kernel ends the children with their parent (PR_SET_PDEATHSIG), so kill -9 of the supervisor leaves none behind.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Final

import msgspec

from serving.errors import SupervisorError
from serving.plain_text import one_line
from serving.process.environment import part_environment
from serving.process.native_output import NOISE
from serving.process.repeated_lines import RepeatedLines
from serving.process.state_folder import LOCK_FILE, prepare_state_folder
from serving.settings import EXIT_MISCONFIGURED, Settings
from stream.child_process import python_command

COLORS: Final = {"broker": 33, "api": 36, "consumer": 32, "archive": 35, "trainer": 34}
STOP_TIMEOUT_S: Final = 40.0
STABLE_AFTER_S: Final = 30.0
MAX_RESTART_DELAY_S: Final = 30.0
PR_SET_PDEATHSIG: Final = 1
LOG_END_BYTES: Final = 32 * 1024
FULL_BELOW_BYTES: Final = 1024 * 1024
MODULES: Final = {
    "broker": "stream.broker",
    "api": "serving.http.app",
    "consumer": "serving.consume.app",
    "archiver": "serving.consume.archiver",
    "trainer": "serving.train.trainer",
}
"""The Python module that each process runs."""

LogLine = Callable[[str, str], None]
"""Called with a part's name and one line of its log."""


class Part(msgspec.Struct, frozen=True):
    """A child process: its name and the Python module it runs, with arguments."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()


def parts_of(settings: Settings, *, train: bool = True, archive: bool = True) -> list[Part]:
    """The parts of a system, in the order in which they start; they stop in the reverse order, the broker last."""
    broker = [Part("broker", MODULES["broker"], (str(settings.state_path / "kafka"), str(settings.kafka_port)))]
    parts = [] if settings.kafka else broker
    parts += [Part("api", MODULES["api"]), Part("consumer", MODULES["consumer"])]
    parts += [Part("archive", MODULES["archiver"])] if archive else []
    return parts + ([Part("trainer", MODULES["trainer"])] if train else [])


class Supervisor:
    """Starts parts, restarts those that exit, and stops all of them."""

    def __init__(self, settings: Settings, parts: list[Part], log: LogLine | None = None) -> None:
        self.settings = settings
        self.parts = parts
        self.log = log or self._print
        self.running: dict[str, asyncio.subprocess.Process] = {}
        self.failed: dict[str, int] = {}
        self._repeated: dict[str, RepeatedLines] = {}
        self._stopping = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lock: IO[str] | None = None

    async def up(
        self, ready: Callable[[], None] | None = None, before_stop: Callable[[], Awaitable[None]] | None = None
    ) -> int:
        """Run until SIGINT or SIGTERM, or until a part is misconfigured; returns 0, or the exit code of that part.

        `ready` is called once the topics exist; `before_stop` is awaited while the parts still run.

        Raises:
            SupervisorError: a system already runs on this state folder.
            StateFolderError: the state folder was written in another format.
        """
        self._take_lock()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self.stop)
        try:
            for part in self.parts:
                self._tasks[part.name] = asyncio.create_task(self._keep_running(part))
                if part.name == "broker":
                    await self._prepare()
            if self.settings.kafka:
                await self._prepare()
            if ready is not None and not self._stopping.is_set():
                ready()
            await self._stopping.wait()
        finally:
            if before_stop is not None:
                await before_stop()
            await self._stop_all()
        return next(iter(self.failed.values()), 0)

    def stop(self) -> None:
        """Begin the shutdown; a second call kills all parts."""
        if self._stopping.is_set():
            for process in self.running.values():
                process.kill()
        self._stopping.set()

    def _take_lock(self) -> None:
        prepare_state_folder(self.settings.state_path)
        self._lock = (self.settings.state_path / LOCK_FILE).open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            state = self.settings.state_path
            raise SupervisorError(
                f"a system already runs on {state} (pid {holder}); stop it, or choose another --state"
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    async def _prepare(self) -> None:
        from stream.admin import create_topics, wait_ready
        from stream.topics import topics

        def wait_and_create() -> None:
            wait_ready(self.settings.bootstrap, self.settings.kafka_security, 120)
            all_topics = topics(self.settings.partitions, self.settings.retention_ms)
            create_topics(
                self.settings.bootstrap,
                self.settings.kafka_security,
                all_topics,
                replication=self.settings.replication,
                min_insync_replicas=self.settings.min_insync_replicas,
            )

        waiting = asyncio.create_task(asyncio.to_thread(wait_and_create))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if waiting.done():
            waiting.result()

    async def _keep_running(self, part: Part) -> None:
        delay_s = 0.5
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run(part)
            if self._stopping.is_set():
                return
            if code == EXIT_MISCONFIGURED:
                self.log("up", f"{part.name} is misconfigured (see above); stopping")
                self.failed[part.name] = code
                self._stopping.set()
                return
            delay_s = 0.5 if time.monotonic() - started > STABLE_AFTER_S else min(delay_s * 2, MAX_RESTART_DELAY_S)
            self.log("up", f"{part.name} exited with code {code}; restarting in {delay_s:.0f} s")
            folder = self.settings.state_path / "kafka"
            if part.name == "broker" and disk_is_full(folder):
                self.log("up", f"cause: the disk below {folder} is full (No space left on device)")
                self.log("up", "cure: free space there; the broker starts by itself, and nothing acknowledged is lost")
            try:
                await asyncio.wait_for(self._stopping.wait(), delay_s)
            except TimeoutError:
                continue

    async def _run(self, part: Part) -> int:
        process = await asyncio.create_subprocess_exec(
            *python_command(part.module, *part.arguments),
            env=part_environment(self.settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
            limit=1024 * 1024,
        )
        self.running[part.name] = process
        assert process.stdout is not None
        repeated = self._repeated.setdefault(part.name, RepeatedLines())
        try:
            async for output in process.stdout:
                line = output.decode("utf-8", "replace").rstrip()
                if not NOISE.search(line):
                    for shown in repeated.pass_on(one_line(line), time.monotonic()):
                        self.log(part.name, shown)
            return await process.wait()
        finally:
            self.running.pop(part.name, None)

    async def _stop_all(self) -> None:
        order = [part.name for part in self.parts if part.name != "broker"]
        await asyncio.gather(*(self._stop_part(name) for name in order))
        await self._stop_part("broker")
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._lock is not None:
            self._lock.close()

    async def _stop_part(self, name: str) -> None:
        process = self.running.get(name)
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            self.log("up", f"{name} did not stop in time; killing it")
            process.kill()
            await process.wait()

    def _print(self, name: str, line: str) -> None:
        color = COLORS.get(name, 37) if sys.stdout.isatty() else None
        prefix = f"\x1b[{color}m{name:>8}\x1b[0m" if color else f"{name:>8}"
        sys.stdout.write(f"{prefix} | {line}\n" if self.settings.log_format == "text" else f"{line}\n")
        sys.stdout.flush()


def disk_is_full(folder: Path) -> bool:
    """Whether a broker's disk is full now, or the end of its log says that it was; the log may be on that disk."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(folder).free < FULL_BELOW_BYTES:
            return True
    for name in ("kafka.log", "console.log"):
        with contextlib.suppress(OSError), (folder / name).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_END_BYTES))
            if b"No space left on device" in log.read():
                return True
    return False


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
