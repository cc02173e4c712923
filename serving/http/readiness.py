"""Whether this process can serve and an event sent now would be applied, and what is missing."""

import asyncio
from typing import TYPE_CHECKING, Final

from features.errors import StoreError
from serving import metrics
from serving.http.service import Service
from stream import topics

if TYPE_CHECKING:
    from features.store import OnlineStore

PROBE_TIMEOUT_S: Final = 1.0


async def missing_parts(service: Service) -> dict[str, str]:
    """What keeps the process from serving, by part, with the cure; empty when it can serve."""
    missing: dict[str, str] = {}
    store_error = await _store_error(service)
    metrics.store_failing.set(bool(store_error))
    if store_error:
        missing["store"] = store_error
    if not service.connected or not await service.catalogue_follower.broker_answers(PROBE_TIMEOUT_S):
        address = service.settings.bootstrap
        missing["broker"] = f"no Kafka answers at {address}; is the broker running, and is the address right?"
    if service.log_guard.problem:
        missing["log"] = service.log_guard.problem
    for follower in (service.catalogue_follower, service.updates_follower, service.outcomes_follower):
        missing |= follower.problems()
    if not service.catalogue_follower.caught_up.is_set():
        missing["catalogue"] = f"the topics {topics.CATALOGUE} and {topics.PROFILES} are still being read; wait"
    elif not service.rules.ready.is_set():
        missing["rules"] = "the rules are being compiled; wait"
    if not service.releases.checked.is_set():
        missing["releases"] = "the current releases are being loaded; wait"
    for name, state in service.domains.items():
        refused = service.releases.problem(name)
        if refused is not None and state.serving is None and not state.domain.popular:
            missing["releases"] = f"{name}: neither a release nor popularity serves: {refused.detail}"
    if not service.updates_follower.caught_up.is_set():
        missing["updates"] = f"the topic {topics.FEATURE_UPDATES} is not followed yet; wait"
    elif service.connected and (problem := service.consumers.problem(await service.producer.partitions(topics.EVENTS))):
        missing["consumer"] = problem
    return missing


def substitutes(service: Service) -> dict[str, str]:
    """By domain whose current release is damaged: its replacement, and why."""
    serving: dict[str, str] = {}
    for name, state in service.domains.items():
        problem = service.releases.problem(name)
        if problem is not None:
            what = f"release {state.serving_id}" if state.serving is not None else "popularity"
            serving[name] = f"{what} serves instead of the current release ({problem.reason}): {problem.detail}"
    return serving


async def _store_error(service: Service) -> str | None:
    if service.lookups.store is None:
        return service.lookups.not_open
    try:
        await asyncio.wait_for(service.lookups.call(_ping), PROBE_TIMEOUT_S)
    except StoreError as error:
        return str(error)
    except TimeoutError:
        return f"the online store does not answer within {PROBE_TIMEOUT_S:g} s"
    return service.lookups.store_health.problem or None


def _ping(store: "OnlineStore") -> None:
    store.ping()
