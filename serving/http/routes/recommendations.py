"""Routes that answer: recommendations (once, live, for anonymous visitors), items, users, what is popular."""

import re
import time
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import ServerSentEvent

from features.activity import Activity, LoggedEvent, apply
from features.popularity import EVERYONE
from serving.bounds import MOST_EXPLORE
from serving.http.problems import Problem
from serving.http.routes.live import lists
from serving.http.service import Service
from serving.recommend.request import MAX_ITEMS, DiversityMethod, LookupRequest
from serving.rules.rule import Rule, RuleError, checked_rule
from stream import topics
from stream.errors import EventError
from stream.events import Id, Interaction, Scalar, check

MOST_CANDIDATES: Final = 10_000
MOST_OWN_RULES: Final = 20
JSON: Final = "application/json"
TOKEN: Final = re.compile(r"(?:[a-z-]+/)?\d{1,9}:\d{1,18}")

Injected = NamedDependency[Service]
N = Annotated[int, QueryParameter(ge=1, le=MAX_ITEMS, description="how many items")]
DomainName = Annotated[
    str | None, QueryParameter(name="domain", description="the domain; the system's default if left out")
]
Seen = Annotated[
    bool | None, QueryParameter(description="leave out items of the history; the domain's habit if left out")
]
After = Annotated[str | None, QueryParameter(description="wait until this token of POST /v1/events is in the features")]

Diversity = Annotated[float | None, QueryParameter(ge=0, le=1, description="0: the ranking; 1: only what differs")]
PerCategory = Annotated[int | None, QueryParameter(ge=1, description="at most so many items of a category")]
Categories = Annotated[int | None, QueryParameter(ge=1, description="at least so many different categories")]
Explore = Annotated[
    float | None, QueryParameter(ge=0, le=MOST_EXPLORE, description="the share of slots, but for the first, to explore")
]

_encode = msgspec.json.Encoder().encode


class Wanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to answer: the parameters of GET, `candidates` (the only items that may appear), and rules of its own."""

    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_ITEMS)] = 20
    domain: str | None = None
    exclude_seen: bool | None = None
    category: str | None = None
    explain: bool = False
    diversity: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    per_category: Annotated[int, msgspec.Meta(ge=1)] | None = None
    categories: Annotated[int, msgspec.Meta(ge=1)] | None = None
    explore: Annotated[float, msgspec.Meta(ge=0, le=MOST_EXPLORE)] | None = None
    diversify: DiversityMethod = "mmr"
    candidates: Annotated[list[Id], msgspec.Meta(max_length=MOST_CANDIDATES)] | None = None
    rules: Annotated[list[Rule], msgspec.Meta(max_length=MOST_OWN_RULES)] = []
    after: str | None = None


class Visit(Wanted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An anonymous visitor's events, oldest first, what else is known, and what to answer. Nothing is stored."""

    events: list[Interaction]
    profile: dict[str, Scalar | list[Scalar]] = {}


class Popular(msgspec.Struct, frozen=True):
    """What is popular now, most popular first."""

    domain: str
    segment: str | None
    items: list[dict[str, Any]]


@get("/v1/users/{user_id:str}/recommendations", tags=["recommendations"], summary="A user's recommendations")
async def recommendations(
    service: Injected,
    user_id: FromPath[str],
    n: N = 20,
    domain: DomainName = None,
    exclude_seen: Seen = None,
    category: FromQuery[str | None] = None,
    after: After = None,
    explain: FromQuery[bool] = False,
    diversity: Diversity = None,
    per_category: PerCategory = None,
    categories: Categories = None,
    explore: Explore = None,
    diversify: FromQuery[DiversityMethod] = "mmr",
) -> Response[bytes]:
    """Computed when asked for, from the features of this moment and the serving release."""
    name = domain_of(service, domain)
    ask = _ask(
        service, name, n, exclude_seen, category, explain, diversity, per_category, categories, explore, diversify
    )
    if after is not None:
        await _wait(service, ask.domain, user_id, after)
    return Response((await service.recommend(user_id, ask)).body, media_type=JSON)


@post(
    "/v1/users/{user_id:str}/recommendations",
    status_code=200,
    tags=["recommendations"],
    summary="The same, with candidates and rules in the body",
)
async def wanted(service: Injected, user_id: FromPath[str], data: JSONBody[Wanted]) -> Response[bytes]:
    """`candidates` are ranked among themselves; `rules` hold for this answer alone."""
    ask = _asked(service, data)
    if data.after is not None:
        await _wait(service, ask.domain, user_id, data.after)
    return Response((await service.recommend(user_id, ask)).body, media_type=JSON)


@get("/v1/users/{user_id:str}/recommendations/stream", tags=["recommendations"], summary="The same, live")
async def live(
    service: Injected,
    user_id: FromPath[str],
    n: N = 20,
    domain: DomainName = None,
    exclude_seen: Seen = None,
    category: FromQuery[str | None] = None,
    explain: FromQuery[bool] = False,
    diversity: Diversity = None,
    per_category: PerCategory = None,
    categories: Categories = None,
    explore: Explore = None,
    diversify: FromQuery[DiversityMethod] = "mmr",
) -> ServerSentEvent:
    """Server-sent events: a list at once, and a new one whenever features, release, rules or items change it."""
    name = domain_of(service, domain)
    ask = _ask(
        service, name, n, exclude_seen, category, explain, diversity, per_category, categories, explore, diversify
    )
    return ServerSentEvent(lists(service, user_id, ask))


@post("/v1/sessions/recommendations", status_code=200, tags=["recommendations"], summary="For an anonymous visitor")
async def session(service: Injected, data: JSONBody[Visit]) -> Response[bytes]:
    """The visitor's events come with the request and are folded in memory."""
    ask = _asked(service, data)
    if data.after is not None:
        await _wait(service, ask.domain, "", data.after)
    now = int(time.time() * 1000)
    for index, event in enumerate(data.events):
        try:
            check(event, now, service.limits)
        except EventError as error:
            raise Problem(400, error.reason, f"events[{index}]: {error.detail}") from None
    log = [LoggedEvent(event, "session/0", offset) for offset, event in enumerate(data.events)]
    found = await service.lookups.of_visitor(apply(None, log, service.rules), ask, data.profile)
    return Response(found.body, media_type=JSON)


@get("/v1/items/{item_id:str}/similar", tags=["catalogue"], summary="Items near an item")
async def similar(service: Injected, item_id: FromPath[str], n: N = 20, domain: DomainName = None) -> Response[bytes]:
    """Neighbours by co-occurrence; for an item that the release does not know, the popular ones of its category."""
    view = service.domains[domain_of(service, domain)].view
    home = view.domain
    near = view.similar(item_id, MAX_ITEMS)
    reason = "similar"
    if not near:
        category = home.category_of(item_id)
        reason = "category" if category else "empty"
        known = [
            *home.popular_by_category.get(category or "", ()),
            *list(home.items_by_category.get(category or "", ())),
        ]
        near = [(one, 0.0) for one in dict.fromkeys(known) if one != item_id]
    items = [
        {"item_id": one, "score": round(score, 6), "title": home.title_of(one)}
        for one, score in near
        if view.shows(one)
    ]
    return _json({"item_id": item_id, "reason": reason if items else "empty", "items": items[:n]})


@get("/v1/items/{item_id:str}", tags=["catalogue"], summary="One item")
async def item(service: Injected, item_id: FromPath[str], domain: DomainName = None) -> Response[bytes]:
    """The catalogue's newest word on an item."""
    name = domain_of(service, domain)
    entry = service.domains[name].domain.items.get(item_id)
    if entry is None:
        raise Problem(404, "unknown-item", f"the catalogue of {name} has no item {item_id!r}; PUT /v1/items adds it")
    stored = await service.lookups.call(lambda store: store.read_item(name, item_id))
    if stored is not None:
        return _json(stored)
    return _json({"item_id": item_id, "domain": name, **msgspec.structs.asdict(entry)})


@get("/v1/users/{user_id:str}/features", tags=["users"], summary="A user's features")
async def features(service: Injected, user_id: FromPath[str], domain: DomainName = None) -> Response[bytes]:
    """The row that Feast keeps: recent, summary, applied; and the profile."""
    name = domain_of(service, domain)
    state = await service.activity(name, user_id)
    profile = await service.lookups.call(lambda store: store.read_profile(name, user_id))
    if state is None and profile is None:
        raise Problem(404, "unknown-user", f"nothing is known of user {user_id!r} in {name}")
    row = msgspec.to_builtins(state or Activity())
    return _json({"user_id": user_id, "domain": name, **row, "profile": profile})


@get("/v1/popular", tags=["recommendations"], summary="What is popular now")
async def popular(
    service: Injected,
    n: N = 20,
    domain: DomainName = None,
    segment: FromQuery[str | None] = None,
    category: FromQuery[str | None] = None,
) -> Response[Popular]:
    """Time-decayed counts of real events, of everyone or of a segment, in all categories or in one."""
    name = domain_of(service, domain)
    view = service.domains[name].view
    home = view.domain
    ranked = home.popular.get(segment or EVERYONE, [])
    kept = [
        (one, count)
        for one, count in ranked
        if view.shows(one) and (category is None or home.category_of(one) == category)
    ]
    rows = [{"item_id": one, "score": count, "title": home.title_of(one)} for one, count in kept[:n]]
    return Response(Popular(name, segment, rows))


def domain_of(service: Service, name: str | None) -> str:
    """The domain asked for, or the default; a Problem for one that is not there."""
    chosen = name or service.settings.domain
    if chosen not in service.domains:
        raise Problem(404, "unknown-domain", f"domain={chosen!r} is not one of {', '.join(service.domains)}")
    return chosen


def _asked(service: Service, data: Wanted) -> LookupRequest:
    """What a body asks for. Raises Problem for a rule that cannot be followed."""
    name = domain_of(service, data.domain)
    try:
        rules = tuple(checked_rule(one) for one in data.rules)
    except RuleError as error:
        raise Problem(400, "bad-rule", str(error)) from None
    options = (data.diversity, data.per_category, data.categories, data.explore, data.diversify)
    ask = _ask(service, name, data.n, data.exclude_seen, data.category, data.explain, *options)
    candidates = frozenset(data.candidates) if data.candidates is not None else None
    return msgspec.structs.replace(ask, candidates=candidates, rules=rules)


def _ask(
    service: Service,
    domain: str,
    n: int,
    exclude_seen: bool | None,
    category: str | None,
    explain: bool,
    diversity: float | None,
    per_category: int | None,
    categories: int | None,
    explore: float | None,
    diversify: DiversityMethod,
) -> LookupRequest:
    """What is asked for; what is left out is as the settings say for the domain."""
    settings = service.settings
    return LookupRequest(
        domain,
        n,
        exclude_seen,
        category,
        explain,
        diversity if diversity is not None else settings.of("diversity", domain) or 0.0,
        per_category if per_category is not None else settings.of("per_category", domain),
        categories if categories is not None else settings.of("categories", domain),
        explore if explore is not None else settings.of("explore", domain) or 0.0,
        diversify,
    )


async def _wait(service: Service, domain: str, user_id: str, after: str) -> None:
    until = time.monotonic() + service.settings.after_timeout_ms / 1000
    tokens = [_token(part) for part in after.split(",")]
    ahead = [(partition, offset) for partition, offset in tokens if not service.updates.has(partition, offset)]
    if not ahead:
        return
    state = await service.activity(domain, user_id)
    known = state.applied.positions if state is not None else {}
    for partition, offset in ahead:
        if known.get(partition, -1) >= offset:
            continue
        if not await service.updates.reached(partition, offset, max(0.0, until - time.monotonic())):
            within = service.settings.after_timeout_ms
            raise Problem(504, "not-yet", f"token {after} is not in the features after {within} ms; ask again")


def _token(text: str) -> tuple[str, int]:
    """`3:120` is offset 120 of `events/3`; other topics are named: `items/0:7`."""
    partition, _, offset = text.rpartition(":")
    if not (TOKEN.fullmatch(text)):
        raise Problem(400, "bad-token", f"after={text!r} is not a token; give what POST /v1/events answered")
    return partition if "/" in partition else f"{topics.EVENTS}/{partition}", int(offset)


def _json(value: Any) -> Response[bytes]:
    return Response(_encode(value), media_type=JSON)
