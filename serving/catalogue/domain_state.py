"""A domain in this process: its catalogue, the rules that apply, and the releases in memory that must follow both."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from features.catalogue import CatalogueEntry, UserProfile
from models.releases.release import Release
from serving.catalogue.domain import CatalogueChanges, Domain
from serving.catalogue.items import ReleaseItems
from serving.catalogue.live_popularity import ExtendableRelease, live_popularity
from serving.catalogue.release_view import CatalogueView, ReleaseView
from serving.rules.compiled import CompiledRules
from serving.rules.rule import Rule, rules_of_domain

NO_RULES: Final[tuple[Rule, ...]] = ()


class LoadedRelease:
    """A release in memory. `view` is what look-ups see of it now; it is replaced as a whole, on the event loop.

    `live_counts` are those that the view was made with.
    """

    __slots__ = ("live_counts", "view")

    def __init__(self, view: ReleaseView) -> None:
        self.view = view
        self.live_counts: Mapping[int, Mapping[str, float]] | None = None

    @property
    def id(self) -> str:
        return self.view.release.id


class ReleaseLoading:
    """A release on its way into a domain. `prepare` may run in another thread."""

    def __init__(self, domain: Domain, rules: tuple[Rule, ...]) -> None:
        self.loaded: LoadedRelease | None = None
        self._domain = domain
        self._rules = rules

    def prepare(self, release: Release) -> LoadedRelease:
        """Build the arrays and compile the rules over the release's items. Slow."""
        domain, freshness = self._domain, self._domain.policy.freshness
        if freshness is not None:
            release = ExtendableRelease(release, freshness.half_life_ms)
        items = ReleaseItems(release, domain.items.copy(), domain.category_codes)
        view = ReleaseView(domain, _compiled(domain, release, self._rules), release=release, items=items)
        self.loaded = LoadedRelease(view)
        return self.loaded


class RuleCompilation:
    """Rules on their way into a domain. `compile` may run in another thread."""

    def __init__(self, domain: Domain, releases: Sequence[LoadedRelease]) -> None:
        self.rules: tuple[Rule, ...] | None = None
        self.without_release: CompiledRules | None = None
        self.compiled: list[tuple[LoadedRelease, CompiledRules]] = []
        self._domain = domain
        self._releases = releases

    def compile(self, rules: Sequence[Rule]) -> None:
        """Compile the rules for this domain over the items of each release in memory, and over none. Slow."""
        domain = self._domain
        mine, now = tuple(rules_of_domain(rules, domain.name)), domain.clock()
        self.without_release = CompiledRules(mine, (), {}, domain.items, now)
        for loaded in self._releases:
            release = loaded.view.release
            compiled = CompiledRules(mine, release.item_ids, release.index, domain.items, now)
            self.compiled.append((loaded, compiled))
        self.rules = mine


class DomainState:
    """One domain as this process serves it.

    Changed on the event loop only; read from any thread: a look-up takes `view` once and sees one consistent state.
    `serving` is the release that serves, `arms` are those of a rollout. `changed` turns true when an item or a rule
    changes, begins or ends, so that lists may differ; whoever reports it resets it.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.rules: tuple[Rule, ...] = NO_RULES
        self.serving: LoadedRelease | None = None
        self.arms: tuple[LoadedRelease, ...] = ()
        self.changed = False
        self._catalogue_view = CatalogueView(domain)
        self._recordings: list[CatalogueChanges] = []

    @property
    def view(self) -> CatalogueView:
        """What a look-up sees now: the serving release's view, or the catalogue's where no release serves."""
        serving = self.serving
        return serving.view if serving is not None else self._catalogue_view

    @property
    def serving_id(self) -> str | None:
        """The id of the release that serves."""
        return self.serving.id if self.serving is not None else None

    @property
    def releases(self) -> tuple[LoadedRelease, ...]:
        """Every release in memory: the serving one, and those of a rollout."""
        return (self.serving, *self.arms) if self.serving is not None else self.arms

    @property
    def reads_profiles(self) -> bool:
        """Whether a release in memory reads users' profiles."""
        return any(loaded.view.release.reads_profiles for loaded in self.releases)

    def put_items(self, items: Sequence[CatalogueEntry]) -> None:
        """Add or replace items."""
        self._apply(self.domain.put_items(items))

    def remove_item(self, item_id: str) -> None:
        """Hide an item that left the catalogue."""
        self._apply(self.domain.remove_item(item_id))

    def put_user(self, user: UserProfile) -> None:
        """Set a user's segment."""
        self.domain.put_user(user)

    def remove_user(self, user_id: str) -> None:
        """Forget a user's segment."""
        self.domain.remove_user(user_id)

    def tick(self) -> None:
        """Follow the time: items expire, rules begin and end. Call it several times a second."""
        self._apply(self.domain.expire_items())
        now = self.domain.clock()
        turned = [rules.tick(now) for rules in self._rules_in_use()]
        self.changed |= any(turned)

    @contextmanager
    def loading(self, *, serve: bool = True) -> Iterator[ReleaseLoading]:
        """Load a release inside; on exit it serves, or with `serve=False` joins the arms.

        The catalogue and the rules may change meanwhile: the changes are replayed on exit. Without `prepare`, or after
        an exception, all stays as it was.
        """
        loading = ReleaseLoading(self.domain, self.rules)
        with self._recording() as changes:
            yield loading
        loaded = loading.loaded
        if loaded is None:
            return
        _apply(loaded.view, changes)
        if loaded.view.rules is not None:
            loaded.view.rules.tick(self.domain.clock())
        self._recompile(loaded)
        self._refresh(loaded)
        if serve:
            self.serving = loaded
        else:
            self.arms = (*self.arms, loaded)

    @contextmanager
    def compiling(self) -> Iterator[RuleCompilation]:
        """Compile rules inside; on exit they apply. Changes of the catalogue meanwhile are replayed on exit."""
        compilation = RuleCompilation(self.domain, self.releases)
        with self._recording() as changes:
            yield compilation
        if compilation.rules is None or compilation.without_release is None:
            return
        self.rules, self.changed = compilation.rules, True
        compilation.without_release.tick(self.domain.clock())
        self._catalogue_view = CatalogueView(self.domain, compilation.without_release if self.rules else None)
        for loaded, compiled in compilation.compiled:
            for item_id, item in changes.items():
                compiled.update_item(item_id, item)
            compiled.tick(self.domain.clock())
            loaded.view = msgspec.structs.replace(loaded.view, rules=compiled if self.rules else None)
        for loaded in self.releases:  # one may have been loaded meanwhile
            self._recompile(loaded)

    def refresh_popularity(self) -> None:
        """Bring live popularity, and items that are newer than them, into the releases in memory."""
        for loaded in self.releases:
            self._refresh(loaded)

    def _refresh(self, loaded: LoadedRelease) -> None:
        domain, view = self.domain, loaded.view
        policy, now = domain.policy.freshness, int(time.time() * 1000)
        if policy is None and loaded.live_counts is domain.live_counts:
            return
        loaded.live_counts = domain.live_counts
        live, new = live_popularity(view.release, policy, domain.live_counts, domain.published_at, now)
        _apply(view, {item_id: domain.items[item_id] for item_id in new if item_id in domain.items})
        loaded.view = msgspec.structs.replace(view, live=live)

    def _recompile(self, loaded: LoadedRelease) -> None:
        rules = loaded.view.rules
        if (rules.rules if rules is not None else NO_RULES) != self.rules:
            compiled = _compiled(self.domain, loaded.view.release, self.rules)
            loaded.view = msgspec.structs.replace(loaded.view, rules=compiled)

    @contextmanager
    def _recording(self) -> Iterator[CatalogueChanges]:
        """The changes of the catalogue while something is prepared in another thread."""
        changes: CatalogueChanges = {}
        self._recordings.append(changes)
        try:
            yield changes
        finally:
            self._recordings = [recording for recording in self._recordings if recording is not changes]

    def _apply(self, changes: CatalogueChanges) -> None:
        if not changes:
            return
        self.changed = True
        for loaded in self.releases:
            _apply(loaded.view, changes)
        for recording in self._recordings:
            recording.update(changes)

    def _rules_in_use(self) -> list[CompiledRules]:
        views = (self._catalogue_view, *(loaded.view for loaded in self.releases))
        return [view.rules for view in views if view.rules is not None]


def _apply(view: ReleaseView, changes: CatalogueChanges) -> None:
    if view.rules is not None:
        for item_id, item in changes.items():
            view.rules.update_item(item_id, item)
    view.items.apply(changes.items())


def _compiled(domain: Domain, release: Release, rules: Sequence[Rule]) -> CompiledRules | None:
    """Rules over a release's items; None where there are none."""
    return CompiledRules(rules, release.item_ids, release.index, domain.items, domain.clock()) if rules else None
