"""The arms of the experiment with new items: what each gives new items for a history, tuned on other hidden items."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import msgspec
import numpy as np

from models.arrays import Float32, Float64, Int64
from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.experiments.new_items_split import NewItemsFold, NewItemsHoldout, NewItemsQuestion
from models.recommenders import new_item_columns as columns_of
from models.recommenders.base import Scorer
from models.recommenders.blend_weights import Evidence, EvidenceBuilder, weights_by_group
from models.recommenders.new_item_columns import ContentFeatures
from models.recommenders.new_item_scorer import ItemTableScorer, history_matrix
from models.recommenders.sparse import popularity_of, popularity_prior
from models.recommenders.top_k import top_k
from models.synthesizers.base import SynthesizerContext
from models.synthesizers.conditions import Conditions
from models.synthesizers.text import Text

CUTOFF: Final = 10
SHOWN: Final = 20
COMPETING: Final = 30
"""The best new items of each arm that compete with a target while weights are fitted."""
TRIES: Final = 64
"""Weights that are tried in each round."""
TUNED_ON: Final = 1_500
"""Users with new targets that weights and parameters are tuned on."""
SYNTHETIC_USERS: Final = 5
SYNTHETIC_EVENTS: Final = 4
"""Together as many events as `PSEUDO_USERS` give a new item."""
REGS: Final = (30.0, 150.0)
DECAYS: Final = (1.0, 0.9)

WORDS, LETTERS, BORROWED = "content-words", "content-letters", "borrowed"
CATEGORY_POPULARITY, PSEUDO, RIDGE, TEXT_ROWS = "category-popularity", "pseudo-interactions", "ridge", "text-rows"
GENERATOR, EXPECTED = "generator", "generator-expected"
OPPONENT_BLEND, SUM, SUM_WITH_GENERATOR = "opponent-blend", "sum", "sum-with-generator"
SUM_EXPECTED, OPPONENT_EXPECTED = "sum-expected-popularity", "opponent-expected-popularity"
SHUFFLED, DRAWN = "sum-shuffled-text", "popularity-draw"
OPPONENTS: Final = (WORDS, LETTERS, BORROWED, CATEGORY_POPULARITY)
"""What a shop without this experiment would use; their blend is tuned like the sum."""
SUMMED: Final = (WORDS, LETTERS, PSEUDO, RIDGE, TEXT_ROWS)
GENERATED: Final = (GENERATOR, EXPECTED)
PARTS: Final = (*OPPONENTS, PSEUDO, RIDGE, TEXT_ROWS, *GENERATED)
HONEST: Final = (*OPPONENTS, OPPONENT_BLEND)
CONTROLS: Final = (SHUFFLED, DRAWN)
SUMS: Final = {OPPONENT_BLEND: OPPONENTS, SUM: SUMMED, SUM_WITH_GENERATOR: (*SUMMED, *GENERATED)}
"""Arms that are weighted sums of parts."""
EXPECTING: Final = {OPPONENT_EXPECTED: OPPONENT_BLEND, SUM_EXPECTED: SUM}
"""Sums times a power of the popularity that texts let expect."""
POWERS: Final = (0.0, 0.25, 0.5, 0.75)
ARMS: Final = (*HONEST, PSEUDO, RIDGE, TEXT_ROWS, *GENERATED, SUM, SUM_WITH_GENERATOR, *EXPECTING, *CONTROLS)
CONDITIONS: Final = 32
"""New items whose synthetic users are sampled at a time."""
BLOCK: Final = 1_000
Params = Mapping[str, Any]
Report = Callable[[str], None]


class ArmInputs:
    """What arms learn from: interactions, and the texts and categories of all items. Costly products are kept."""

    def __init__(self, interactions: Interactions, content: ContentFeatures, reg: float, seed: int) -> None:
        self.interactions, self.content, self.reg, self.seed = interactions, content, reg, seed
        self.known = interactions.warm_items or 0
        self.matrix = interactions.user_item_matrix()[:, : self.known].tocsr()
        assert not interactions.user_item_matrix()[:, self.known :].nnz, "hidden items have events"

    @cached_property
    def gram(self) -> Float32:
        """X'X float32 [known, known]."""
        gram: Float32 = (self.matrix.T @ self.matrix).toarray().astype(np.float32)
        return gram

    @cached_property
    def inverse(self) -> Float32:
        """(X'X + reg I)^-1."""
        return columns_of.inverse_of(self.gram, self.reg)

    @cached_property
    def table(self) -> Float32:
        """EASE's weights between known items."""
        return columns_of.ease_table(self.inverse)

    @cached_property
    def expected(self) -> Float32:
        """float32 [new]: the users that a new item can expect by its text."""
        counts = np.diff(self.matrix.tocsc().indptr).astype(np.int64)
        return columns_of.expected_popularity(self.content.combined(), counts)

    @cached_property
    def similarities(self) -> Float32:
        """float32 [known, new]: the content similarity by which users take a new item."""
        combined = self.content.combined()
        similarities: Float32 = (combined[: self.known] @ combined[self.known :].T).toarray()
        return similarities

    @cached_property
    def synthesizer(self) -> Text:
        """The text synthesizer, fitted on the events."""
        synthesizer = Text(context=SynthesizerContext(seed=self.seed))
        synthesizer.fit(self.interactions)
        return synthesizer

    @property
    def conditions(self) -> list[Conditions]:
        """What each new item says of the users who would take it."""
        interactions, names = self.interactions, self.interactions.category_names
        titles = interactions.titles or ("",) * len(interactions.vocabulary)
        return [
            Conditions(text=title or None, category=names[code - 1] if code else None, events=SYNTHETIC_EVENTS)
            for title, code in zip(titles[self.known :], interactions.categories[self.known :].tolist(), strict=True)
        ]

    def with_reg(self, reg: float) -> "ArmInputs":
        """The same events and texts with another `reg`."""
        other = ArmInputs(self.interactions, self.content, reg, self.seed)
        other.__dict__["gram"] = self.gram
        return other

    def with_content(self, content: ContentFeatures) -> "ArmInputs":
        """The same events, and other texts; what depends on events alone is kept."""
        other = ArmInputs(self.interactions, content, self.reg, self.seed)
        for name in ("gram", "inverse", "table"):
            if name in self.__dict__:
                other.__dict__[name] = self.__dict__[name]
        return other


def part_columns(name: str, inputs: ArmInputs, params: Params) -> Float32:
    """float32 [known, new]: the columns of one part."""
    content, known = inputs.content, inputs.known
    if name == WORDS:
        return columns_of.content_columns(content.words, content.categories, known, **params)
    if name == LETTERS:
        return columns_of.content_columns(content.letters, content.categories, known, **params)
    if name == BORROWED:
        return columns_of.borrowed_columns(content, known, inputs.table)
    if name == CATEGORY_POPULARITY:
        return _category_popularity(inputs)
    if name == RIDGE:
        return columns_of.ridge_columns(content.combined(), known, inputs.table, params["reg"])
    if name == TEXT_ROWS:
        return columns_of.text_row_columns(inputs.gram, content.combined(), known, **params)
    if name == EXPECTED:
        return _expected(inputs)
    return _refitted(inputs, *(_synthetic_users if name == GENERATOR else _pseudo_users)(inputs, name), params["refit"])


def _refitted(inputs: ArmInputs, shared: Float32, sizes: Float32, refit: str) -> Float32:
    """EASE or item-kNN with the users that known items share with new ones; `sizes` float32 [new]."""
    if refit == "ease":
        return columns_of.regressed_columns(shared, inputs.inverse)
    known = np.asarray(inputs.matrix.power(2).sum(axis=0), np.float32).ravel()
    return columns_of.cosine_columns(shared, known, sizes)


def _pseudo_users(inputs: ArmInputs, name: str) -> tuple[Float32, Float32]:
    pseudo = columns_of.pseudo_interactions(inputs.matrix, inputs.similarities)
    if name == DRAWN:
        pseudo = columns_of.drawn_interactions(inputs.matrix, pseudo, np.random.default_rng(inputs.seed))
    shared = (inputs.matrix.T @ pseudo).toarray().astype(np.float32)
    return shared, np.asarray(pseudo.power(2).sum(axis=0), np.float32).ravel()


def _synthetic_users(inputs: ArmInputs, _name: str) -> tuple[Float32, Float32]:
    """Users sampled for each new item's text and category (`models.synthesizers.text`), who are taken to take it."""
    synthesizer, conditions = inputs.synthesizer, inputs.conditions
    known, new = inputs.known, len(conditions)
    shared = np.zeros((known, new), np.float32)
    rng = np.random.default_rng(inputs.seed)
    for start in range(0, new, CONDITIONS):
        part = conditions[start : start + CONDITIONS]
        users = synthesizer.sample(part, SYNTHETIC_USERS, rng)
        owners = start + users.users // SYNTHETIC_USERS
        real = users.items < known
        np.add.at(shared, (users.items[real], owners[real]), np.float32(columns_of.PSEUDO_WEIGHT))
    return shared, np.full(new, SYNTHETIC_USERS * columns_of.PSEUDO_WEIGHT**2, np.float32)


def _expected(inputs: ArmInputs) -> Float32:
    """The text generator's expected next event, in closed form: the probability of each new item after a known one."""
    chain, known = inputs.synthesizer.forward, inputs.known
    parts = [
        chain.after(np.arange(start, min(start + BLOCK, known), dtype=np.int32))[:, known:]
        for start in range(0, known, BLOCK)
    ]
    return np.concatenate(parts)


def _category_popularity(inputs: ArmInputs) -> Float32:
    """The mean number of users of the known items of the new item's category, whatever the history."""
    codes, known = inputs.content.codes, inputs.known
    users = np.diff(inputs.matrix.tocsc().indptr)
    sums = np.bincount(codes[:known], users, int(codes.max(initial=0)) + 1)
    means = sums / np.maximum(np.bincount(codes[:known], minlength=len(sums)), 1)
    return np.tile(means[codes[known:]].astype(np.float32), (known, 1))


def grid_of(name: str, inputs: ArmInputs) -> list[Params]:
    """The parameters that a part is tried with."""
    shares = (0.0, 0.2, 0.5) if inputs.content.codes.any() else (0.0,)
    if name in {WORDS, LETTERS}:
        return [
            {"power": power, "evenness": evenness, "category_share": share}
            for power in (1.0, 2.0)
            for evenness in (0.0, 0.5)
            for share in shares
        ]
    if name == RIDGE:
        return [{"reg": 0.3}, {"reg": 1.0}, {"reg": 4.0}]
    if name == TEXT_ROWS:
        return [{"weight": 100.0, "reg": 150.0}, {"weight": 100.0, "reg": 1600.0}, {"weight": 1000.0, "reg": 10_000.0}]
    return [{"refit": "knn"}, {"refit": "ease"}] if name in {PSEUDO, GENERATOR, DRAWN} else [{}]


class Questions:
    """The questions of a holdout as arrays: histories, and new targets as numbers among the new items."""

    def __init__(self, holdout: NewItemsHoldout, questions: Sequence[NewItemsQuestion], length: int) -> None:
        vocabulary, known = holdout.training.vocabulary, holdout.known
        self.questions, self.known = list(questions), known
        self.batch: Batch = batch_histories([question.history for question in questions], vocabulary, length)
        self.new = [[vocabulary.index[item] - known for item in question.new] for question in questions]
        self.warm = [[vocabulary.index[item] for item in question.warm] for question in questions]
        self.seen = [{vocabulary.index[item] for item in question.history.items} for question in questions]

    def scores(self, columns: Float32, decay: float) -> Float32:
        """float32 [questions, new items]."""
        scores: Float32 = history_matrix(self.batch, self.known, decay) @ columns
        return scores

    def ndcg(self, scores: Float32) -> float:
        """The mean NDCG@10 among new items of the questions with new targets."""
        best = top_k(scores, CUTOFF)[0]
        return float(
            np.mean([ndcg_of_list(row, targets) for row, targets in zip(best, self.new, strict=True) if targets])
        )


def ndcg_of_list(items: Int64, targets: Sequence[int]) -> float:
    """NDCG@10 of a list of item numbers.

    >>> round(ndcg_of_list(np.array([4, 2, 9]), [2, 7]), 4)
    0.3869
    """
    distinct = set(targets)
    gains = 1.0 / np.log2(np.arange(2, CUTOFF + 2))
    hits = np.array([item in distinct for item in items[:CUTOFF].tolist()], np.bool_)
    return float(gains[: len(hits)][hits].sum() / gains[: min(CUTOFF, max(1, len(distinct)))].sum())


def known_lists(base: Scorer, questions: Questions, most: int = SHOWN) -> tuple[Int64, Float32]:
    """The best known items of each question, without those of the history, and their shares: [questions, most]."""
    indices, values = [], []
    for start in range(0, len(questions.batch), BLOCK):
        shares = base.probabilities(questions.batch.slice(start, start + BLOCK))[:, : questions.known]
        for row, seen in enumerate(questions.seen[start : start + BLOCK]):
            shares[row, list(seen)] = -np.inf
        best = top_k(shares, most)
        indices.append(best[0])
        values.append(best[1])
    return np.concatenate(indices), np.concatenate(values)


class TunedArms(msgspec.Struct, frozen=True):
    """What tuning chose: EASE's `reg`, the `decay` of histories, each part's parameters and NDCG@10 there, and the
    weights of each sum over its parts' columns."""

    reg: float
    decay: float
    params: dict[str, dict[str, Any]]
    values: dict[str, float]
    weights: dict[str, dict[str, float]]
    powers: dict[str, float]


class Tuning(msgspec.Struct, frozen=True):
    """What tuning chose, and what it was chosen on: `scores` float32 [questions, new items] of each arm."""

    arms: TunedArms
    inputs: ArmInputs
    questions: Questions
    scores: dict[str, Float32]


def tuned_arms(fold: NewItemsFold, length: int, seed: int, report: Report = lambda _stage: None) -> Tuning:
    """Parameters and weights by the questions of the tuning holdout, which hides other items than the test."""
    holdout = fold.tuning
    rng = np.random.default_rng([seed, fold.number])
    kept = rng.permutation(len(holdout.questions))
    with_new = [place for place in kept.tolist() if holdout.questions[place].new][:TUNED_ON]
    without = [place for place in kept.tolist() if not holdout.questions[place].new][:TUNED_ON]
    questions = Questions(holdout, [holdout.questions[place] for place in [*with_new, *without]], length)
    inputs = _tuned_inputs(holdout, length, seed, report)
    decay = _tuned_decay(inputs, questions)
    params: dict[str, dict[str, Any]] = {}
    values: dict[str, float] = {}
    tables: dict[str, Float32] = {}
    for name in (*PARTS, DRAWN):
        best = -1.0
        for tried in grid_of(name, inputs):
            scores = questions.scores(part_columns(name, inputs, tried), decay)
            value = questions.ndcg(scores)
            if value > best:
                best, params[name], values[name], tables[name] = value, dict(tried), value, scores
        report(f"tuned {name}")
    evidence = _evidence(questions, {name: tables[name] for name in PARTS})
    weights = {
        arm: dict(zip(parts, _weights(evidence.only(parts), rng).tolist(), strict=True)) for arm, parts in SUMS.items()
    }
    powers = {}
    for arm, parts in weights.items():
        tables[arm] = weighted_sum(tables, parts)
        values[arm] = questions.ndcg(tables[arm])
    for arm, base in EXPECTING.items():
        tried_values = [questions.ndcg(tables[base] * inputs.expected**power) for power in POWERS]
        powers[arm], values[arm] = POWERS[int(np.argmax(tried_values))], max(tried_values)
        tables[arm] = tables[base] * inputs.expected ** powers[arm]
    return Tuning(TunedArms(inputs.reg, decay, params, values, weights, powers), inputs, questions, tables)


def fitted_columns(inputs: ArmInputs, tuned: TunedArms, report: Report = lambda _stage: None) -> dict[str, Float32]:
    """The columns of every arm, by name."""
    parts = {}
    for name in (*PARTS, DRAWN):
        parts[name] = part_columns(name, inputs, tuned.params[name])
        report(f"fitted {name}")
    sums = {arm: weighted_sum(parts, weights) for arm, weights in tuned.weights.items()}
    for arm, base in EXPECTING.items():
        sums[arm] = sums[base] * inputs.expected ** tuned.powers[arm]
    order = np.random.default_rng([inputs.seed, 7]).permutation(len(inputs.content.codes))
    shuffled = inputs.with_content(inputs.content.permuted(order))
    others = {name: part_columns(name, shuffled, tuned.params[name]) for name in SUMMED}
    report("fitted shuffled text")
    sums[SHUFFLED] = weighted_sum(others, tuned.weights[SUM])
    columns = {**parts, **sums}
    return {arm: columns[arm] for arm in ARMS}


def weighted_sum(columns: Mapping[str, Float32], weights: Mapping[str, float]) -> Float32:
    """The sum of columns times their weights."""
    total = np.zeros_like(columns[next(iter(weights))])
    for name, weight in weights.items():
        total += np.float32(weight) * columns[name]
    return total


def base_of(inputs: ArmInputs, decay: float) -> ItemTableScorer:
    """What ranks known items: EASE over all of them."""
    interactions = inputs.interactions
    prior = popularity_prior(popularity_of(interactions, interactions.vocabulary.popularity_half_life_ms))
    return ItemTableScorer(interactions.vocabulary, inputs.table, prior, decay)


def _tuned_inputs(holdout: NewItemsHoldout, length: int, seed: int, report: Report) -> ArmInputs:
    """The inputs with the `reg` that is best for NDCG@10 of warm targets."""
    warm = [question for question in holdout.questions if question.warm][:TUNED_ON]
    questions, best = Questions(holdout, warm, length), (-1.0, REGS[0])
    inputs = ArmInputs(holdout.training, ContentFeatures.fit(holdout.training), REGS[0], seed)
    chosen = inputs
    for reg in REGS:
        tried = inputs.with_reg(reg)
        lists = known_lists(base_of(tried, DECAYS[-1]), questions)[0]
        pairs = zip(lists, questions.warm, strict=True)
        value = float(np.mean([ndcg_of_list(row, targets) for row, targets in pairs])) if warm else 0.0
        if value > best[0]:
            best, chosen = (value, reg), tried
        report(f"tuned reg {reg:g}")
    return chosen


def _tuned_decay(inputs: ArmInputs, questions: Questions) -> float:
    """The decay that is best for the opponents' content-kNN; all arms have it."""
    columns = part_columns(WORDS, inputs, grid_of(WORDS, inputs)[0])
    values = [questions.ndcg(questions.scores(columns, decay)) for decay in DECAYS]
    return DECAYS[int(np.argmax(values))]


def _evidence(questions: Questions, tables: Mapping[str, Float32]) -> Evidence:
    builder = EvidenceBuilder(tuple(tables), COMPETING)
    stacked = np.stack(list(tables.values()))
    for row, targets in enumerate(questions.new):
        if not targets:
            continue
        builder.add(stacked[:, row], targets, target_count=len(targets), length=1, user=row)
    return builder.build()


def _weights(evidence: Evidence, rng: np.random.Generator) -> Float64:
    """float64 [parts]: the weights of a sum, one row for all histories."""
    weights: Float64 = weights_by_group(evidence, np.zeros(len(evidence), np.int64), np.zeros(1, np.int64), rng, TRIES)[
        0
    ]
    return weights
