"""Off-policy evaluation: click-through rates at other exploration shares, estimated from the exploration log.

The log consists of archived impressions, whose `context.propensities` give the probability with which each place
showed its item, and the clicks that followed. In each list every place but the first explores independently with
the list's exploration share s: it keeps its ranked item with probability 1 - s, or shows an item drawn from a pool of
its own, with probability s times the draw. So a log of one share estimates the rate at any other share: at share t a
kept item has probability 1 - t, and a drawn item has its propensity times t / s.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from features.activity import LoggedEvent
from features.archive import forwarded_originals, partitions, read_events
from features.outcomes import CLICK_KINDS, JoinWindow
from models.arrays import Bool, Float64
from models.errors import ModelError
from models.rerank.exploration import PolicyEstimate, ips, propensities_of, snips
from stream.events import Impression, Interaction

KEPT: Final = 0.5
"""A look-up explores at most half of its places, so a place with at least this propensity kept its ranked item."""
NORMAL_95: Final = 1.96


class ExploringPlace(msgspec.Struct):
    """A place of a shown list that could explore: the item's propensity, and whether the user clicked the item.

    `share` is the list's exploration share; None if no place of the list kept its item.
    """

    item_id: str
    at: int
    request: str
    propensity: float
    share: float | None
    clicked: bool = False


class ExplorationLog(msgspec.Struct, frozen=True):
    """The exploring places of the log.

    Attributes:
        propensity: float64 [places].
        share: float64 [places], the exploration share of the place's list.
        clicked: bool [places].
        impressions: lists in the log; `explored` of them have exploring places.
        malformed: lists whose propensities cannot be read.
        unknown_share: lists left out because their exploration share is unknown.
    """

    propensity: Float64
    share: Float64
    clicked: Bool
    impressions: int
    explored: int
    malformed: int
    unknown_share: int


class PolicyResult(msgspec.Struct, frozen=True):
    """The click-through rate of exploring places at one exploration share, by two estimators, with 95% intervals.

    `effective`: the number of places that the estimate is worth. `share` is None for the log as it is.
    """

    share: float | None
    ips: float
    ips_interval: tuple[float, float]
    snips: float
    snips_interval: tuple[float, float]
    effective: float


class OffPolicyReport(msgspec.Struct, frozen=True):
    """The result of an off-policy evaluation: the size of the log, and one result for each exploration share."""

    domain: str
    impressions: int
    explored: int
    places: int
    clicks: int
    malformed: int
    unknown_share: int
    policies: list[PolicyResult]


def evaluate_off_policy(
    archive: Path, domain: str, shares: Sequence[float], window_ms: int | None = None
) -> OffPolicyReport:
    """Estimate click-through rates at other exploration `shares` (0..1) from a domain's archived impressions.

    A click counts for a place if it follows the impression within `window_ms` (by default as in canary outcomes).

    Raises:
        ModelError: a share is out of range, or nothing was explored.
        ArchiveError: an archived part cannot be read.
    """
    wrong = [share for share in shares if not 0 <= share <= 1]
    if wrong:
        raise ModelError(f"--explore {wrong[0]:g}: give an exploration share between 0 and 1")
    log = read_log(archive, domain, window_ms if window_ms is not None else JoinWindow().ms)
    if not len(log.propensity):
        raise ModelError(
            f"{domain}: none of {log.impressions} archived impressions explored ({log.malformed} with unreadable "
            "propensities): ask for recommendations with explore=0.05, and send each item's propensity back in the "
            "impression's context.propensities"
        )
    return OffPolicyReport(
        domain=domain,
        impressions=log.impressions,
        explored=log.explored,
        places=len(log.propensity),
        clicks=int(log.clicked.sum()),
        malformed=log.malformed,
        unknown_share=log.unknown_share,
        policies=[estimate(log, None), *(estimate(log, share) for share in shares)],
    )


def estimate(log: ExplorationLog, share: float | None) -> PolicyResult:
    """The click-through rate at an exploration share; of the log as it is where `share` is None."""
    rewards = log.clicked.astype(np.float64)
    target = log.propensity if share is None else target_propensities(log, share)
    by_ips, by_snips = ips(rewards, log.propensity, target), snips(rewards, log.propensity, target)
    return PolicyResult(
        share=share,
        ips=by_ips.value,
        ips_interval=_interval(by_ips),
        snips=by_snips.value,
        snips_interval=_interval(by_snips),
        effective=by_ips.effective,
    )


def target_propensities(log: ExplorationLog, share: float) -> Float64:
    """float64 [places]: the probability that each place shows the same item at another exploration share."""
    kept = log.propensity >= KEPT
    target: Float64 = np.where(kept, 1 - share, log.propensity * share / log.share)
    return target


def read_log(archive: Path, domain: str, window_ms: int) -> ExplorationLog:
    """The exploring places of a domain's archived impressions, joined with the clicks that followed."""
    lists: list[list[ExploringPlace]] = []
    impressions = malformed = 0
    originals = forwarded_originals(archive, "events")
    for partition in partitions(archive, "events"):
        events = read_events(archive, "events", partition, skipped=originals)
        joined, shown, unreadable = _joined(events, domain, window_ms)
        lists += joined
        impressions += shown
        malformed += unreadable
    shares = {place.share for places in lists for place in places if place.share is not None}
    only_share = shares.pop() if len(shares) == 1 else None
    known = [places for places in lists if places[0].share is not None or only_share is not None]
    places = [place for places in known for place in places]
    return ExplorationLog(
        propensity=np.array([place.propensity for place in places], np.float64),
        share=np.array([place.share if place.share is not None else only_share for place in places], np.float64),
        clicked=np.array([place.clicked for place in places], np.bool_),
        impressions=impressions,
        explored=len(lists),
        malformed=malformed,
        unknown_share=len(lists) - len(known),
    )


def _joined(events: Iterable[LoggedEvent], domain: str, window_ms: int) -> tuple[list[list[ExploringPlace]], int, int]:
    """One partition's lists with exploring places, its number of impressions, and of those that cannot be read."""
    lists: list[list[ExploringPlace]] = []
    places: dict[tuple[str, str], list[ExploringPlace]] = {}
    seen: set[tuple[str, str]] = set()
    malformed = 0
    for logged in events:
        event = logged.event
        if event.domain != domain:
            continue
        if isinstance(event, Interaction) and event.kind in CLICK_KINDS:
            _click(places.get((event.user_id, event.item_id), []), event, window_ms)
        elif isinstance(event, Impression):
            key = (event.user_id, event.request_id or event.event_id)
            if key in seen:  # sent twice
                continue
            seen.add(key)
            if "propensities" not in event.context:
                continue
            try:
                exploring = _exploring_places(event)
            except ModelError:
                malformed += 1
                continue
            if exploring:
                lists.append(exploring)
            for place in exploring:
                places.setdefault((event.user_id, place.item_id), []).append(place)
    return lists, len(seen), malformed


def _exploring_places(impression: Impression) -> list[ExploringPlace]:
    """The places of a list with a propensity below 1. Raises ModelError for unreadable propensities."""
    propensities = propensities_of(impression).tolist()
    kept = [propensity for propensity in propensities if KEPT <= propensity < 1]
    share = round(1 - kept[0], 9) if kept else None
    request = impression.request_id or impression.event_id
    pairs = zip(impression.item_ids, propensities, strict=True)
    return [
        ExploringPlace(item_id, impression.at, request, propensity, share)
        for item_id, propensity in pairs
        if propensity < 1
    ]


def _click(places: Sequence[ExploringPlace], click: Interaction, window_ms: int) -> None:
    """Mark the place that a click belongs to: of the request that it names, else the newest that showed the item."""
    request = click.context.get("request_id")
    for place in reversed(places):
        if 0 <= click.at - place.at <= window_ms and (request is None or request == place.request):
            place.clicked = True
            return


def _interval(policy: PolicyEstimate) -> tuple[float, float]:
    return policy.value - NORMAL_95 * policy.error, policy.value + NORMAL_95 * policy.error
