"""Content-kNN: items with similar titles and of the same category, popular ones first."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from msgspec import Meta
from scipy import sparse

from models.arrays import Float32, Int32
from models.data.interactions import Interactions
from models.data.text_vectors import tfidf
from models.recommenders import tuning_space
from models.recommenders.base import TuningContext
from models.recommenders.item_item import ItemItem, nearest_by_product

if TYPE_CHECKING:
    from optuna import Trial

BLOCK: Final = 256
"""Items compared at a time: nearly all titles share a few letters, so a block's rows are nearly dense."""
MAX_SHARE: Final = 0.05
"""A word or letter group of more titles says little of each, and would make every pair of them similar."""
MIN_TITLES: Final = 100
"""However few the titles are, what stands in so many of them is kept."""


class ContentKNN(ItemItem):
    """The cosine of titles and the category, times a power of popularity.

    similarity(i, j) = ((1 - category_share) cosine(title i, title j) + category_share same(i, j)) (1 + c_j)^power.
    Titles are TF-IDF vectors of words and letter groups (`models.data.text_vectors`; Lops, de Gemmis & Semeraro,
    Recommender Systems Handbook, 2011, section 3.3.1), same(i, j) is 1 within a category, and c_j counts the users of
    item j. Without titles the category alone relates items; without either nothing does.
    """

    name = "content-knn"
    needs_item_text = True

    class Params(ItemItem.Params, frozen=True, kw_only=True):
        """Parameters of the formula above, and those of `ItemItem`."""

        neighbors: Annotated[int, Meta(ge=1)] = 100
        decay: Annotated[float, Meta(ge=0, le=1)] = 0.9
        category_share: Annotated[float, Meta(ge=0, le=1)] = 0.2
        power: Annotated[float, Meta(ge=0)] = 0.5

    def relate(self, interactions: Interactions) -> tuple[Int32, Float32]:
        params, size = self.params, len(interactions.vocabulary)
        content = _content(interactions.titles, interactions.categories, params.category_share)
        counts = np.bincount(interactions.user_item_matrix().indices, minlength=size)
        columns = (content.T @ sparse.diags((1.0 + counts) ** params.power)).tocsr().astype(np.float32)
        return nearest_by_product(content, columns, params.neighbors, block_size=BLOCK)

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        return {
            "neighbors": trial.suggest_int("neighbors", 20, 300, log=True),
            "category_share": trial.suggest_float("category_share", 0.0, 0.6),
            "power": trial.suggest_float("power", 0.0, 1.0),
            **tuning_space.history_weights(trial, context, min_decay=0.3),
        }


def _content(titles: Sequence[str] | None, categories: Int32, category_share: float) -> sparse.csr_matrix:
    """float32 [items, columns]: rows whose products are the similarities before popularity."""
    items = np.flatnonzero(categories)
    groups = sparse.csr_matrix(
        (np.ones(len(items)), (items, categories[items])), (len(categories), int(categories.max(initial=0)) + 1)
    )
    if titles is None:
        return groups.astype(np.float32)
    words = tfidf(titles, max(MIN_TITLES, int(MAX_SHARE * len(titles))))
    both = sparse.hstack([np.sqrt(1 - category_share) * words, np.sqrt(category_share) * groups])
    content: sparse.csr_matrix = both.tocsr().astype(np.float32)
    return content
