"""What each option of a look-up costs at 100,000 items: the functions alone, then over HTTP.

python -m benchmarks.lookup_options [--items 100000] [--recommender transformer] [--seconds 5] [--no-http] [--json]
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
import msgspec
import numpy as np

from benchmarks.lookups import SETTLE_S, fill, histories, serving, under_load
from benchmarks.measurements import machine, percentiles
from features.activity import Activity
from models.domains import preset as presets
from models.releases import release_store
from serving.catalogue.domain import Domain, DomainPolicy
from serving.catalogue.domain_state import DomainState
from serving.catalogue.release_view import ReleaseView
from serving.recommend.pipeline import answer
from serving.recommend.request import LookupRequest, Ranked, prepare
from serving.recommend.scoring import score_items, top_candidates
from serving.rules.rule import Rule
from testing import load
from testing.random_release import write_random_release
from testing.synthetic import synthetic_items
from testing.temporary_folder import temporary_folder

RULES: Final = 100
LOOK_UPS: Final = 300
OPTIONS: Final[Mapping[str, dict[str, Any]]] = {
    "plain": {},
    "100 rules": {},
    "diversity .3": {"diversity": 0.3},
    "2 per category": {"per_category": 2},
    "explore .05": {"explore": 0.05},
    "explain": {"explain": True},
    "all": {"diversity": 0.3, "per_category": 2, "explore": 0.05, "explain": True},
}
WITH_RULES: Final = ("100 rules", "all")


def rules(items: int, rng: np.random.Generator) -> list[Rule]:
    """A hundred of every kind: by item, by category, by attribute, for some users; two pins."""
    generated: list[Rule] = []
    for number in range(RULES):
        kind = number % 5
        category = {"category": f"c{int(rng.integers(200))}"}
        some = [f"i{integer}" for integer in rng.integers(0, items, 20)]
        if number < 2:
            generated.append(Rule(id=f"r{number}", action="pin", position=3 * number + 2, items=some[:1]))
        elif kind == 0:
            generated.append(Rule(id=f"r{number}", action="exclude", items=some))
        elif kind == 1:
            generated.append(Rule(id=f"r{number}", action="boost", factor=2.0, where=dict(category)))
        elif kind == 2:
            generated.append(Rule(id=f"r{number}", action="bury", factor=0.5, where={"title": some[:5]}))
        elif kind == 3:
            generated.append(Rule(id=f"r{number}", action="boost", factor=1.5, items=some, segment="young"))
        else:
            generated.append(Rule(id=f"r{number}", action="bury", factor=0.8, where=dict(category), share=0.5))
    return generated


def functions(items: int, recommender: str, rng: np.random.Generator) -> dict[str, Any]:
    """Milliseconds of one look-up by option, without store and HTTP; and of readying the rules."""
    with temporary_folder("coldstream-options-") as folder:
        root = folder
        name = write_random_release(root, items, recommender, rng)
        loaded = release_store.load(root / "shop" / name)
    state = DomainState(Domain(DomainPolicy.of(presets.preset_of("shop"))))
    state.put_items(synthetic_items(items))
    with state.loading() as loading:
        loading.prepare(loaded)
    activities = [activity for _, activity in histories(LOOK_UPS, items, rng)]
    figures: dict[str, Any] = {}
    for option, query in OPTIONS.items():
        with state.compiling() as compilation:
            began = time.perf_counter()
            compilation.compile(rules(items, rng) if option in WITH_RULES else [])
            if option == "100 rules":
                figures["readying 100 rules"] = (time.perf_counter() - began) * 1000
        request = LookupRequest("shop", **query)
        figures[option] = percentiles(
            [_timed(state, request, activity) for activity in [*activities[:20], *activities]][20:]
        )
    return figures


def _timed(state: DomainState, request: LookupRequest, activity: Activity) -> float:
    view = state.view
    assert isinstance(view, ReleaseView)
    began = time.perf_counter()
    lookup = prepare(request, view, activity, user_id="u", request_id=str(began))
    (candidates,) = top_candidates(view, [lookup], score_items(view, [lookup]))
    msgspec.json.encode(answer(Ranked(lookup, candidates)))
    return time.perf_counter() - began


def over_http(items: int, users: int, recommender: str, seconds: float, rng: np.random.Generator) -> dict[str, Any]:
    """Latency by option on one connection, and what 32 connections pass."""
    figures: dict[str, Any] = {}
    with temporary_folder("coldstream-options-") as folder:
        state = folder
        fill(state / "feast", users, items, rng)
        write_random_release(state / "releases", items, recommender, rng)
        with serving(state, items) as (port, pid), httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            time.sleep(SETTLE_S)
            for option, query in sorted(OPTIONS.items(), key=lambda pair: pair[0] in WITH_RULES):
                if option in WITH_RULES:
                    _tell(client, rules(items, rng))
                single = under_load(port, pid, lookups(users, query, rng), 1, seconds)
                many = under_load(port, pid, lookups(users, query, rng), 32, seconds)
                figures[option] = {**single, "with_32": many}
    return figures


def lookups(users: int, query: Mapping[str, Any], rng: np.random.Generator) -> Iterator[bytes]:
    """Look-ups with an option, of users drawn evenly."""
    words = "".join(f"&{name}={str(value).lower()}" for name, value in query.items())
    while True:
        for user in rng.integers(0, users, 10_000):
            yield load.get_request(f"/v1/users/u{user}/recommendations?n=20{words}")


def _tell(client: httpx.Client, rules: list[Rule]) -> None:
    for rule in rules:
        answer = client.put(f"/v1/rules/{rule.id}", content=msgspec.json.encode(rule))
        answer.raise_for_status()
    client.get("/v1/users/u1/recommendations", params={"after": answer.json()["token"]}).raise_for_status()


def measure(items: int, users: int, recommender: str, seconds: float, *, http: bool = True) -> dict[str, Any]:
    """The whole benchmark."""
    rng = np.random.default_rng(0)
    figures: dict[str, Any] = {"machine": machine(), "items": items, "recommender": recommender}
    figures["functions"] = functions(items, recommender, rng)
    if http:
        figures["http"] = over_http(items, users, recommender, seconds, rng)
    return figures


def show(figures: dict[str, Any]) -> None:
    """The tables."""
    print(f"options of a look-up, {figures['items']:,} items, 20 answers, {figures['recommender']}")
    alone, http = figures["functions"], figures.get("http", {})
    print(
        f"{'':18}{'alone p50':>11}{'p99 ms':>9}{'x plain':>9}{'http p50':>11}{'p99 ms':>9}{'cpu us':>9}"
        f"{'/s with 32':>12}{'cpu us':>9}"
    )
    for option in OPTIONS:
        row, plain = alone[option], alone["plain"]
        line = f"{option:18}{row['p50']:11.3f}{row['p99']:9.3f}{row['p50'] / plain['p50']:9.2f}"
        if option in http:
            line += f"{http[option]['p50']:11.2f}{http[option]['p99']:9.2f}"
            many = http[option]["with_32"]
            line += f"{http[option]['cpu_us']:9.0f}{many['per_second']:12.0f}{many['cpu_us']:9.0f}"
        print(line)
    print(f"readying 100 rules, in another thread: {alone['readying 100 rules']:.0f} ms")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="What each option of a look-up costs.")
    parser.add_argument("--items", type=int, default=100_000, help="items in catalogue and release")
    parser.add_argument("--users", type=int, default=20_000, help="users with histories, over HTTP")
    parser.add_argument("--recommender", default="transformer", help="as of coldstream bench lookups")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each part over HTTP lasts")
    parser.add_argument("--no-http", action="store_true", help="the functions alone")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    figures = measure(
        arguments.items, arguments.users, arguments.recommender, arguments.seconds, http=not arguments.no_http
    )
    print(json.dumps(figures, default=str, indent=2)) if arguments.json else show(figures)


if __name__ == "__main__":
    main()
