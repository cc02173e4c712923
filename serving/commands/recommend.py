"""`coldstream recommend`: a user's recommendations from the running API."""

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from serving.commands.options import AsJson, DomainOption, UserId
from serving.commands.output import print_lines


def recommend(
    ctx: typer.Context,
    user: UserId,
    n: Annotated[int, typer.Option("-n", help="The number of items.")] = 10,
    domain: DomainOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the events behind each recommendation.")] = False,
    diversity: Annotated[
        float | None, typer.Option(min=0, max=1, help="From 0 (ranking by score) to 1 (as diverse as possible).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a user's recommendations, each with its reason."""
    from serving.commands.client import call_api

    query: dict[str, Any] = {"user_id": user, "n": n, "explain": explain or not as_json} | (
        {"domain": domain} if domain else {}
    )
    query |= {} if diversity is None else {"diversity": diversity}
    answer = call_api(ctx.obj, "GET", "/v1/users/recommendations", query=query)
    print_lines(answer, answer_lines(user, answer, explain=explain), as_json)


def answer_lines(user: str, answer: dict[str, Any], *, explain: bool) -> Iterator[str]:
    """An answer of the API for people: the release, then a line for each item with its explanation."""
    yield f"{user}: {answer['reason']}, release {answer['release']}"
    for rank, item in enumerate(answer["items"], 1):
        because = item.get("because") or [] if explain else []
        events = ", ".join(f"{event['kind']} {event['item_id']}" for event in because)
        about = " · ".join(filter(None, [item.get("title"), item.get("category")]))
        rules = ", ".join(f"{trace['action']} by {trace['rule']}" for trace in item.get("rules") or [])
        explanation = ", ".join(filter(None, [item["why"]["text"], rules, events]))
        yield f"{rank:3} {item['item_id']:>14} {item['score']:9.4f} {item['reason']:<9} {about} ({explanation})"
