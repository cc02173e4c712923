"""Whole data sets through a running system: replayed, folded, archived, learned from, answered.

`python -m benchmarks.replays [--folder FOLDER] [--json]` with the folder that holds the public data sets.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.measurements import machine
from testing.supervised import SupervisedSystem, supervised_system

SETS: Final = {"online-retail": ("uci-online-retail", "shop"), "movielens-1m": ("ml-1m", "video")}
WITHIN_S: Final = 600.0


def measure(folder: Path) -> dict[str, Any]:
    """For each data set, on a system of its own: seconds of each step, the release, and a user's answer."""
    figures: dict[str, Any] = {"machine": machine()}
    for name, (place, domain) in SETS.items():
        with supervised_system("--no-train", domain=domain) as system:
            figures[name] = _through(system, f"{name}:{folder / place}", domain)
    return figures


def show(figures: dict[str, Any]) -> None:
    """The table."""
    for name in SETS:
        run = figures[name]
        print(
            f"{name}: {run['sent']['events']:,} events, {run['sent']['items']:,} items, {run['sent']['users']:,} users"
        )
        print(f"  sent in {run['sent']['seconds']:.1f} s, in the features {run['caught_up_s']:.1f} s after the start")
        for recommender, metrics in run["trained"]["metrics"].items():
            shown = ", ".join(f"{key} {value:.4f}" for key, value in metrics.items() if key != "users")
            print(f"  {recommender:<10} {shown}")
        print(
            f"  training took {run['train_s']:.0f} s; {run['trained']['reason']}; dead letters: {run['dead_letters']}"
        )
        answer = run["answer"]
        print(f"  user {answer['user_id']}: {answer['reason']}, {[item['title'] for item in answer['items']]}")


def _through(system: SupervisedSystem, source: str, domain: str) -> dict[str, Any]:
    began = time.monotonic()
    sent = _command(system, "replay", source)
    expected = sent["events"]
    _wait(system, lambda status: status["events"] + status["dead letters"] >= expected and status["lag"] == 0)
    caught_up = time.monotonic() - began
    _wait(system, lambda status: status["archived rows"] >= expected + sent["items"] + sent["users"])
    began = time.monotonic()
    trained = _command(system, "train", "--once", "--domain", domain)
    train_s = time.monotonic() - began
    answer = _personal(system, trained["serving"])
    status = _command(system, "status")
    return {
        "sent": sent,
        "caught_up_s": caught_up,
        "train_s": train_s,
        "trained": trained,
        "answer": answer,
        "dead_letters": status["dead letters"],
    }


def _personal(system: SupervisedSystem, release: str) -> dict[str, Any]:
    """The first user's list, once `release` serves."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for user in ("1", "17850", "2", "12347"):
            answer = httpx.get(f"{system.url}/v1/users/{user}/recommendations", params={"n": 5}).json()
            if answer["reason"] == "personal" and answer["release"] == release:
                recommendations: dict[str, Any] = answer
                return recommendations
        time.sleep(0.2)
    raise RuntimeError(f"release {release} gives nobody a personal answer")


def _wait(system: SupervisedSystem, condition: Any) -> None:
    until = time.monotonic() + WITHIN_S
    while not condition(status := _command(system, "status")):
        if time.monotonic() > until:
            raise RuntimeError(f"not within {WITHIN_S:g} s: {status}")
        time.sleep(0.5)


def _command(system: SupervisedSystem, *words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "serving.cli", *words, "--json"]
    done = subprocess.run(command, env=system.environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr[-2000:]}")
    output: dict[str, Any] = json.loads(done.stdout)
    return output


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("../shared/data"))
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    figures = measure(chosen.folder)
    print(json.dumps(figures, indent=2)) if chosen.json else show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
