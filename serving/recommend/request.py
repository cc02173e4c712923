"""A look-up's request, and its stages: `Pending` in the worker, `Prepared` with features, `Ranked` with candidates."""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from features.activity import Activity, History
from models.data.profiles import ANONYMOUS, Profile, RequestContext
from models.rerank.diversity import CategoryLimits
from serving.catalogue.domain import DomainPolicy
from serving.catalogue.release_view import CatalogueView
from serving.recommend.negative_feedback import PENALTIES, negative_items
from serving.rules.rule import Rule

MAX_ITEMS: Final = 200
MAX_CANDIDATES: Final = 2_000
DIVERSE: Final = 5
EXPLORING: Final = 10
"""Diverse lists are chosen from 5 n candidates; slots that explore draw from ranks n to 10 n."""
WITH_RULES: Final = 500
"""Rules that come with a request apply to so many of the top candidates."""

DiversityMethod = Literal["mmr", "dpp"]


class LookupRequest(msgspec.Struct, frozen=True):
    """What a look-up asks for. `candidates` are the only items that may appear; `rules` are the request's own."""

    domain: str
    n: int = 20
    exclude_seen: bool | None = None
    category: str | None = None
    explain: bool = False
    diversity: float = 0.0
    per_category: int | None = None
    categories: int | None = None
    explore: float = 0.0
    diversify: DiversityMethod = "mmr"
    candidates: frozenset[str] | None = None
    rules: tuple[Rule, ...] = ()

    @property
    def floor(self) -> CategoryLimits:
        """The limits by category."""
        return CategoryLimits(per_category=self.per_category, categories=self.categories)

    @property
    def plain(self) -> bool:
        """Whether the list is the ranking itself, without re-ranking."""
        whole = self.candidates is None and not self.rules
        return whole and not self.diversity and not self.explore and self.per_category is self.categories is None

    @property
    def pool_size(self) -> int:
        """How many candidates the list is chosen from."""
        size = self.n
        if self.diversity or self.per_category is not None or self.categories is not None:
            size = DIVERSE * self.n
        if self.explore:
            size = EXPLORING * self.n
        return min(max(size, WITH_RULES if self.rules else 0), MAX_CANDIDATES)


class Prepared(msgspec.Struct, frozen=True, eq=False):
    """A look-up with its features: the history, what must not appear, and the view that it is answered from.

    `unwanted` items are among the `excluded` ones. `negative_feedback` are skipped or unwanted items with their kinds,
    `searches` the user's newest search texts. `context`: the profile and the time, for releases that read them.
    `positions` are the log positions that the features hold. `arm` says whose view it is: serving, canary or shadow.
    """

    request: LookupRequest
    view: CatalogueView
    history: History
    excluded: frozenset[str] = frozenset()
    unwanted: frozenset[str] = frozenset()
    negative_feedback: tuple[tuple[str, int], ...] = ()
    searches: tuple[str, ...] = ()
    segment: str | None = None
    context: RequestContext = ANONYMOUS
    user_id: str | None = None
    request_id: str = ""
    positions: Mapping[str, int] = {}
    arm: str = "serving"

    @property
    def subject(self) -> str:
        """What rules for a share of users draw by: the user, or the visitor's request."""
        return self.user_id or self.request_id


class Ranked(msgspec.Struct, frozen=True, eq=False):
    """A look-up with the release's candidates and their scores, best first; none where the release knows nothing."""

    prepared: Prepared
    candidates: list[tuple[str, float]] = []


def prepare(
    request: LookupRequest,
    view: CatalogueView,
    activity: Activity | None,
    *,
    now_ms: int = 0,
    user_id: str | None = None,
    request_id: str = "",
    segment: str | None = None,
    profile: Profile | None = None,
    arm: str = "serving",
) -> Prepared:
    """Put a look-up and its features together. Unwanted items never come back, seen ones as the request or the domain
    says."""
    context, policy = RequestContext(profile, now_ms), view.domain.policy
    if activity is None:
        return Prepared(
            request, view, History(), segment=segment, context=context, user_id=user_id, request_id=request_id, arm=arm
        )
    history, weights, against = activity.recent, policy.kind_weights, policy.unwanted_kinds
    rows = zip(history.items, history.kinds, strict=True)
    opinions = {item: kind for item, kind in rows if weights[kind] > 0 or kind in PENALTIES or kind in against}
    kept = frozenset(activity.unwanted) if against else frozenset[str]()
    unwanted = kept.union(item for item, kind in opinions.items() if kind in against)
    negative = any(kind in PENALTIES for kind in opinions.values())
    return Prepared(
        request,
        view,
        history,
        excluded=unwanted.union(_seen(history, request, policy, now_ms)),
        unwanted=unwanted,
        negative_feedback=negative_items(history, opinions) if negative else (),
        searches=tuple(activity.summary.queries),
        segment=segment,
        context=context,
        user_id=user_id,
        request_id=request_id,
        positions=activity.applied.positions if user_id is not None else {},
        arm=arm,
    )


def _seen(history: History, request: LookupRequest, policy: DomainPolicy, now_ms: int) -> Iterable[str]:
    """Items of the history that must not appear: as the request says, else as the domain's policy does."""
    seen_ms = policy.seen_ms if request.exclude_seen is None else None if request.exclude_seen else 0
    if seen_ms is None:
        return history.items
    rows = zip(history.items, history.times, strict=True) if seen_ms else ()
    return (item for item, at in rows if at > now_ms - seen_ms)
