"""What a look-up takes: a frozen view of a domain as one of its releases sees it, so that its state is consistent."""

from collections.abc import Sequence

import msgspec
import numpy as np

from features.activity import History
from models.arrays import Float32
from models.data.batch import Batch
from models.data.profiles import RequestContext
from models.releases.release import Release
from serving.catalogue.domain import Domain
from serving.catalogue.items import ReleaseItems
from serving.catalogue.live_popularity import LivePopularity
from serving.rules.compiled import CompiledRules


class CatalogueView(msgspec.Struct, frozen=True, eq=False):
    """A domain before it has a release: catalogue, popularity and rules. `rules` is None where there are none."""

    domain: Domain
    rules: CompiledRules | None = None

    @property
    def release_id(self) -> str | None:
        """The id of the release that ranks; None here."""
        return None

    @property
    def logits(self) -> bool:
        """Whether scores are logarithms of shares."""
        return False

    @property
    def new_items(self) -> tuple[str, ...]:
        """Items that the release does not know, newest first."""
        return ()

    def similar(self, item_id: str, n: int) -> list[tuple[str, float]]:  # noqa: ARG002 - no release, no similar items
        """The most similar items with their similarities; empty without a release, or for an item it does not know."""
        return []

    def shows(self, item_id: str) -> bool:
        """Whether an item may be shown to everyone: it is available, and no rule excludes it for all users."""
        if not self.domain.is_available(item_id):
            return False
        if self.rules is None:
            return True
        active = self.rules.active.intersection(self.rules.matching(item_id, self.domain.items.get(item_id)))
        rules = [self.rules.rules[number] for number in active]
        return not any(rule.action == "exclude" and not rule.conditional for rule in rules)


class ReleaseView(CatalogueView, frozen=True, eq=False, kw_only=True):
    """A domain as a release sees it. Rules and live popularity change by a new view; `items` follow the catalogue.

    `live` is there where the release mixes live popularity in, or the domain's items age.
    """

    release: Release
    items: ReleaseItems
    live: LivePopularity | None = None

    @property
    def release_id(self) -> str | None:
        return self.release.id

    @property
    def logits(self) -> bool:
        """Whether scores are logarithms of shares; scores that live popularity is mixed into are shares."""
        return self.live is None and self.release.recommender.scores_are_logits

    @property
    def new_items(self) -> tuple[str, ...]:
        return self.items.newest

    def similar(self, item_id: str, n: int) -> list[tuple[str, float]]:
        return self.release.similar(item_id, n)

    def scores(self, histories: Sequence[History], contexts: Sequence[RequestContext] = ()) -> Float32:
        """float32 [histories, items]: the release's scores, with live popularity mixed in where there is any.

        `contexts` says who asks and when, for each history; leave it out where that is not known.
        """
        if self.live is None:
            return self.release.scores(histories, contexts)
        return self.mixed(self.release.batch(histories, contexts), self.live)

    def mixed(self, batch: Batch, live: LivePopularity) -> Float32:
        """float32 [batch, items]: shares, with live popularity mixed in; -inf in unused places."""
        scores = self.release.probabilities(batch)
        live.add(scores, batch)
        scores[:, live.used :] = -np.inf
        return scores
