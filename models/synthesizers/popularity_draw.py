"""Events drawn from popularity, whatever the user did: the weakest baseline."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from models.data.interactions import Interactions
from models.synthesizers.chain import Chain, backing_off, shares
from models.synthesizers.item_chain import ItemChain


class PopularityDraw(ItemChain):
    """P(j) is proportional to n(j) + `smoothing`, with n(j) the events of item j. Every event is drawn on its own."""

    name = "popularity-draw"

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`smoothing`: added to every item's events, so that items without any can come."""

        smoothing: Annotated[float, Meta(ge=0)] = 0.1

    def chains(self, interactions: Interactions) -> tuple[Chain, Chain]:
        counts = np.bincount(interactions.items, minlength=len(interactions.vocabulary))
        popularity = shares(counts + self.params.smoothing)
        chain = Chain(backing_off([], popularity), popularity)
        return chain, chain
