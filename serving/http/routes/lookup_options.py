"""What a look-up may be asked for: one set of options for query parameters, bodies, and the live stream."""

from typing import Annotated, Final

import msgspec
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from serving.http.problems import Problem
from serving.http.routes.parameters import Category, DomainName, InjectedService, N, domain_of
from serving.http.service import Service
from serving.recommend.request import MAX_ITEMS, DiversityMethod, LookupRequest
from serving.rules.rule import Rule, RuleError, checked_rule
from serving.setting_types import MAX_EXPLORATION
from stream.events import Domain, Id, Int64, Interaction, Kind, Label, Scalar

MAX_REQUEST_CANDIDATES: Final = 10_000
MAX_REQUEST_RULES: Final = 20
MAX_REQUEST_TESTS: Final = 32
MAX_REQUEST_VALUES: Final = 2_000
MAX_REQUEST_ITEMS: Final = 10_000
"""Conditions, their values, and items in all rules of a request: each is tested with every top candidate."""
MAX_SESSION_EVENTS: Final = 500

ExcludeSeen = Annotated[
    bool | None, QueryParameter(description="Leave out items of the user's history. Default: as the domain's preset.")
]
Explain = Annotated[bool, QueryParameter(description="Explain each item: events, contributions and rules.")]
Diversity = Annotated[
    float | None, QueryParameter(ge=0, le=1, description="From 0 (ranking by score) to 1 (as diverse as possible).")
]
PerCategory = Annotated[
    int | None, QueryParameter(ge=1, le=MAX_ITEMS, description="At most this many items of a category.")
]
Categories = Annotated[
    int | None, QueryParameter(ge=1, le=MAX_ITEMS, description="At least this many different categories.")
]
Explore = Annotated[
    float | None,
    QueryParameter(ge=0, le=MAX_EXPLORATION, description="The share of slots, except the first, that explore."),
]
Diversify = Annotated[
    DiversityMethod,
    QueryParameter(description="How to diversify: maximal marginal relevance, or a determinantal point process."),
]


class LookupOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to recommend: query parameters of GET, fields of a body of POST."""

    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_ITEMS)] = 20
    domain: str | None = None
    exclude_seen: bool | None = None
    category: str | None = None
    explain: bool = False
    diversity: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    per_category: Annotated[int, msgspec.Meta(ge=1, le=MAX_ITEMS)] | None = None
    categories: Annotated[int, msgspec.Meta(ge=1, le=MAX_ITEMS)] | None = None
    explore: Annotated[float, msgspec.Meta(ge=0, le=MAX_EXPLORATION)] | None = None
    diversify: DiversityMethod = "mmr"


class LookupBody(LookupOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The options, `candidates` (only these items may appear), rules for this answer, and a token to wait for."""

    candidates: Annotated[list[Id], msgspec.Meta(max_length=MAX_REQUEST_CANDIDATES)] | None = None
    rules: Annotated[list[Rule], msgspec.Meta(max_length=MAX_REQUEST_RULES)] = []
    after: str | None = None


class VisitorEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="interaction"):
    """What an anonymous visitor did: an `Interaction` that needs neither an event id nor a user."""

    item_id: Id
    kind: Kind
    at: Int64
    event_id: Id | None = None
    user_id: Id | None = None
    domain: Domain = "shop"
    value: float | None = None
    session_id: Id | None = None
    category: Label | None = None
    segment: Label | None = None
    context: dict[str, Scalar] = {}

    def interaction(self, number: int) -> Interaction:
        """The interaction; `number` is its place in the session."""
        fields = msgspec.structs.asdict(self)
        fields |= {"event_id": self.event_id or f"event-{number}", "user_id": self.user_id or "visitor"}
        return Interaction(**fields)


class SessionBody(LookupBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The events of an anonymous visitor, oldest first, a profile, and what to recommend. Nothing is stored."""

    events: Annotated[list[VisitorEvent], msgspec.Meta(max_length=MAX_SESSION_EVENTS)]
    profile: dict[str, Scalar | list[Scalar]] = {}


def query_lookup(
    service: InjectedService,
    n: N = 20,
    domain: DomainName = None,
    exclude_seen: ExcludeSeen = None,
    category: Category = None,
    explain: Explain = False,
    diversity: Diversity = None,
    per_category: PerCategory = None,
    categories: Categories = None,
    explore: Explore = None,
    diversify: Diversify = "mmr",
) -> LookupRequest:
    """The dependency `lookup` of every route that takes a look-up's options in its query. Raises Problem."""
    options = LookupOptions(
        n=n,
        domain=domain,
        exclude_seen=exclude_seen,
        category=category,
        explain=explain,
        diversity=diversity,
        per_category=per_category,
        categories=categories,
        explore=explore,
        diversify=diversify,
    )
    return lookup_request(service, options)


InjectedLookup = NamedDependency[LookupRequest]


def lookup_request(service: Service, options: LookupOptions) -> LookupRequest:
    """The look-up that options ask for; what they leave out is as the settings say for the domain.

    Raises:
        Problem: the domain is unknown.
    """
    domain, settings = domain_of(service, options.domain), service.settings
    diversity, explore = options.diversity, options.explore
    per_category, categories = options.per_category, options.categories
    return LookupRequest(
        domain=domain,
        n=options.n,
        exclude_seen=options.exclude_seen,
        category=options.category,
        explain=options.explain,
        diversity=diversity if diversity is not None else settings.of("diversity", domain) or 0.0,
        per_category=per_category if per_category is not None else settings.of("per_category", domain),
        categories=categories if categories is not None else settings.of("categories", domain),
        explore=explore if explore is not None else settings.of("explore", domain) or 0.0,
        diversify=options.diversify,
    )


def body_request(service: Service, body: LookupBody) -> LookupRequest:
    """The look-up that a body asks for.

    Raises:
        Problem: the domain is unknown, or a rule cannot be applied.
    """
    request = lookup_request(service, body)
    try:
        rules = tuple(checked_rule(rule) for rule in body.rules)
    except RuleError as error:
        raise Problem(400, "bad-rule", str(error)) from None
    _check_size(rules)
    candidates = frozenset(body.candidates) if body.candidates is not None else None
    return msgspec.structs.replace(request, candidates=candidates, rules=rules)


def _check_size(rules: tuple[Rule, ...]) -> None:
    """Refuse rules that would keep other look-ups waiting."""
    tests = [test for rule in rules for test in rule.tests().values()]
    values = sum(len(test.one_of or ()) for test in tests)
    items = sum(len(rule.items) for rule in rules)
    sizes = {"conditions": (len(tests), MAX_REQUEST_TESTS), "values": (values, MAX_REQUEST_VALUES)}
    for what, (number, limit) in {**sizes, "items": (items, MAX_REQUEST_ITEMS)}.items():
        if number > limit:
            cure = f"at most {limit} are allowed, PUT /v1/rules stores larger ones"
            detail = f"the request's rules have {number} {what}; {cure}"
            raise Problem(400, "bad-rule", detail)
