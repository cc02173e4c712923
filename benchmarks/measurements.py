"""What benchmarks say of the machine, of memory, and of latencies."""

import os
import platform

import numpy as np
import psutil


def memory(pid: int) -> dict[str, dict[str, float]]:
    """MiB of each process below `pid`: resident, and proportional (shared pages divided among their users)."""
    table: dict[str, dict[str, float]] = {}
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        full = process.memory_full_info()
        table[_name(process)] = {"rss": full.rss / 2**20, "pss": full.pss / 2**20}
    return table


def worked_s(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def machine() -> dict[str, object]:
    """The machine on which the figures were measured, as far as it shapes them."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p90, p99 and maximum in milliseconds, and the number of values."""
    values = np.asarray(seconds) * 1000
    if not len(values):
        return {"n": 0}
    p50, p90, p99 = (float(np.percentile(values, q)) for q in (50, 90, 99))
    return {"n": len(values), "p50": p50, "p90": p90, "p99": p99, "max": float(values.max())}


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    part = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), process.name())
    tail = " ".join(words[2:5]) if len(words) > 2 else part
    return f"{process.pid} {process.name()} {tail}"[:60]
