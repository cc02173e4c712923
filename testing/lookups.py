"""A release of item-to-item weights written out by hand, and look-ups of it without a server."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from features.activity import Activity, FoldSettings, LoggedEvent, apply
from features.catalogue import CatalogueEntry
from models.data.vocabulary import Vocabulary
from models.domains import preset as presets
from models.recommenders.item_knn import ItemKNN
from models.releases import release_store
from models.releases.manifest import Manifest, new_id
from models.releases.release import Release
from serving.catalogue.domain import DEFAULT_POLICY, Domain, DomainPolicy
from serving.catalogue.domain_state import DomainState
from serving.catalogue.release_view import ReleaseView
from serving.recommend.answer import Answer
from serving.recommend.pipeline import answer
from serving.recommend.request import LookupRequest, Ranked, prepare
from serving.recommend.scoring import can_personalize, score_items, top_candidates
from serving.rules.rule import Rule
from stream.events import Interaction

NOW = 1_760_000_000_000
SHOP = DomainPolicy.of(presets.preset_of("shop"))
"""Where items that were taken may come again."""
Near = Mapping[str, Sequence[tuple[str, float]]]


def write_release(root: Path, item_ids: Sequence[str], near: Near, domain: str = "shop", neighbors: int = 8) -> str:
    """A release in which an event on an item offers `near[item]` with these weights; promoted. Its id."""
    model = ItemKNN(ItemKNN.Params(neighbors=neighbors, decay=1.0))
    model.vocabulary = Vocabulary.from_items(list(item_ids))
    index = model.vocabulary.index
    model.popularity = np.arange(len(item_ids), 0, -1, dtype=np.float32)
    model.neighbors = np.full((len(item_ids), neighbors), -1, np.int32)
    model.similarities = np.zeros((len(item_ids), neighbors), np.float32)
    for item, others in near.items():
        for place, (other, amount) in enumerate(others):
            model.neighbors[index[item], place], model.similarities[index[item], place] = index[other], amount
    manifest = Manifest(new_id(), domain, "item-knn", NOW, NOW, len(item_ids), 0, 0, {}, model.describe())
    release_store.save(root, manifest, item_ids, model.save)
    release_store.promote(root, domain, manifest.id)
    return manifest.id


def read_release(root: Path, domain: str = "shop") -> Release:
    current = release_store.current_id(root, domain)
    assert current is not None
    return release_store.load(root / domain / current)


def state_of(*acts: tuple[str, str], start: int = NOW) -> Activity:
    """A user's state after (kind, item) events, a second apart."""
    events = [
        Interaction(event_id=f"e{n}", user_id="ann", item_id=item, kind=kind, at=start + 1000 * n)  # type: ignore[arg-type]
        for n, (kind, item) in enumerate(acts)
    ]
    return apply(None, [LoggedEvent(event, "events/0", n) for n, event in enumerate(events)], FoldSettings())


def domain_state(
    policy: DomainPolicy = DEFAULT_POLICY, *, name: str = "shop", clock: Callable[[], int] | None = None
) -> DomainState:
    """A domain without items and release."""
    return DomainState(Domain(policy, name=name, clock=clock) if clock is not None else Domain(policy, name=name))


def stocked(
    state: DomainState, categories: Mapping[str, str | None], **attributes: Mapping[str, object]
) -> DomainState:
    """Put items with categories, and attributes by name and item, into a domain."""
    state.put_items(
        [
            CatalogueEntry(
                item_id=item,
                at=NOW,
                title=item.upper(),
                category=category,
                attributes={name: values[item] for name, values in attributes.items() if item in values},  # type: ignore[misc]
            )
            for item, category in categories.items()
        ]
    )
    return state


def serve(state: DomainState, release: Release) -> None:
    with state.loading() as loading:
        loading.prepare(release)


def follow(state: DomainState, *rules: Rule) -> None:
    with state.compiling() as compilation:
        compilation.compile(rules)


def release_view(state: DomainState) -> ReleaseView:
    assert isinstance(state.view, ReleaseView)
    return state.view


def look_up(
    state: DomainState,
    activity: Activity | None,
    request: LookupRequest,
    *,
    user_id: str | None = "ann",
    segment: str | None = None,
    request_id: str = "r1",
    now_ms: int = NOW,
) -> Answer:
    """What an API process does with a look-up."""
    lookup = prepare(
        request, state.view, activity, now_ms=now_ms, user_id=user_id, request_id=request_id, segment=segment
    )
    if not can_personalize(lookup):
        return answer(Ranked(lookup))
    view = release_view(state)
    (candidates,) = top_candidates(view, [lookup], score_items(view, [lookup]))
    return answer(Ranked(lookup, candidates))


def ids(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.items]
