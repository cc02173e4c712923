"""Several generators as one: the one that generates a history is drawn by the weights of its segment."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta
from scipy.special import logsumexp

from features.activity import History
from models.arrays import AnyArray, Float32, Float64, Int32
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.synthesizers import registry
from models.synthesizers.base import (
    Progress,
    SamplingOptions,
    Synthesizer,
    SynthesizerContext,
    no_progress,
    require_events,
)
from models.synthesizers.conditions import CONDITION_NAMES, Conditions, SynthesisError, check_conditions
from models.synthesizers.decoding import LATENT
from models.synthesizers.histories import Histories, joined
from models.synthesizers.joint_members import check_joint, fit_jointly
from models.synthesizers.popularity_draw import PopularityDraw
from models.synthesizers.segment_weights import (
    LEAST,
    MOST_KNOWN,
    SegmentWeights,
    describe_weights,
    learn_weights,
    segment_of,
)
from models.synthesizers.streams import RandomStreams

MEMBER: Final = LATENT + 1
"""The use of random numbers that draw a member."""
MOST_EXPECTED: Final = 512
"""Held-out conditions whose expectations are computed at a time: they are dense over the items."""
HORIZON: Final = 3
"""Events after the known ones by whose likelihood weights are learned."""
MemberNames = Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]


class Mixture(Synthesizer):
    """A mixture of fitted members with weights by segment: the number of known events and, on request, a profile value.

    Weights are those under which the next HORIZON events of users whom no member saw are most likely
    (`segment_weights`): a member is drawn for a history, not for an event.
    Popularity takes part as `none`: a segment in which the members do not beat it gets no synthesis, and `report`
    says so. A condition goes to the members that support all of it. `expected` is the weighted mean of the members';
    `sample` draws one member for each history; `log_prob` mixes the members that have one.
    """

    name = "mixture"
    supports = frozenset(CONDITION_NAMES)

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`members`: names of the registry, with `member_params` by name. `attribute`: of profiles, splits segments
        further. `held_out`: the share of users, at most `most_held_out`, by whom weights are learned. `shrink`: cases
        of the weights of all segments that are added to each. `share_embeddings`: each member that has item vectors
        begins with those of the member before it. `joint`: members (`gan`, with `autoregressive`, `vae` or both) train
        in turns over one table of item vectors, at most `rounds` times, until held-out events have not become more
        likely for `patience` rounds; `matching` is the weight of the distance of the critic's features."""

        members: MemberNames = ("autoregressive", "gan")
        member_params: dict[str, dict[str, Any]] = {}
        attribute: str = ""
        held_out: Annotated[float, Meta(gt=0, le=0.5)] = 0.1
        most_held_out: Annotated[int, Meta(ge=4)] = 300
        shrink: Annotated[float, Meta(ge=0)] = 50.0
        share_embeddings: bool = True
        joint: bool = False
        rounds: Annotated[int, Meta(ge=1)] = 30
        patience: Annotated[int, Meta(ge=1)] = 3
        matching: Annotated[float, Meta(ge=0)] = 1.0

    def __init__(self, params: msgspec.Struct | None = None, context: SynthesizerContext | None = None) -> None:
        super().__init__(params, context)
        self.members = [self._member(name) for name in self.params.members]
        self.none = PopularityDraw()
        supported = frozenset(name for member in self.members for name in member.supports)
        self.supports = supported  # type: ignore[misc]  # what a mixture supports depends on its members
        self.segments: dict[str, SegmentWeights] = {}
        self.joint_training: list[dict[str, float]] = []
        if self.params.joint:
            check_joint(self.params.members, dict(zip(self.params.members, self.members, strict=True)))

    def _member(self, name: str) -> Synthesizer:
        if name == self.name:
            raise SynthesisError("mixture: a mixture cannot be a member of itself; give other members")
        seconds = self.context.seconds
        share = seconds / len(self.params.members) if seconds is not None else None
        folder = self.context.checkpoint / name if self.context.checkpoint is not None else None
        context = msgspec.structs.replace(self.context, seconds=share, checkpoint=folder)
        return registry.create(name, self.params.member_params.get(name, {}), context)

    def fit(self, interactions: Interactions, progress: Progress = no_progress) -> None:
        require_events(interactions, self.name)
        self.vocabulary = interactions.vocabulary
        rng = np.random.default_rng([self.context.seed, 4])
        users = rng.permutation(interactions.user_count)
        held = users[: min(self.params.most_held_out, max(1, round(self.params.held_out * len(users))))]
        rest = interactions.of_users(np.setdiff1d(users, held)) if len(held) < len(users) else interactions
        if self.params.joint:
            members = dict(zip(self.params.members, self.members, strict=True))
            self.joint_training = fit_jointly(members, rest, self.params, self.context, progress)
        else:
            self._fit_members(rest, progress)
        self.none.fit(rest)
        self._learn_weights(interactions.of_users(held))
        progress(1.0, {})

    def _fit_members(self, rest: Interactions, progress: Progress) -> None:
        """One member after another."""
        embeddings = None
        for number, member in enumerate(self.members):
            if embeddings is not None and self.params.share_embeddings:
                member.item_embeddings = embeddings

            def part(share: float, figures: Mapping[str, float], number: int = number) -> None:
                progress((number + share) / (len(self.members) + 1), figures)

            member.fit(rest, part)
            embeddings = member.item_embeddings if member.item_embeddings is not None else embeddings

    def _learn_weights(self, held: Interactions) -> None:
        """A case is a user and a number of known events; what counts are the HORIZON events that follow."""
        histories = Histories.from_interactions(held)
        most = np.minimum(histories.lengths, MOST_KNOWN + HORIZON)
        rows = np.repeat(np.arange(len(histories)), most)
        known = np.concatenate([np.arange(count) for count in most.tolist()])
        events = histories.starts[rows] + known
        conditions = [
            Conditions(first=_first_events(histories, row, count, self.vocabulary), profile=self._profile(held, event))
            for row, count, event in zip(rows.tolist(), known.tolist(), events.tolist(), strict=True)
        ]
        logs = np.log(np.maximum(self._likelihoods(conditions, histories.items[events]), LEAST))
        following = logs.copy()
        for step in range(1, HORIZON):
            same = np.flatnonzero(rows[step:] == rows[:-step])
            following[same] += logs[same + step]
        cases = np.flatnonzero(known <= MOST_KNOWN)
        segments = [segment_of(conditions[case], self.params.attribute) for case in cases.tolist()]
        self.segments = learn_weights(following[cases], segments, rows[cases], self.params.shrink)

    def _likelihoods(self, conditions: Sequence[Conditions], items: Int32) -> Float64:
        """float64 [conditions, members + 1]: the probability of each item as the next one, under each member."""
        every = [*self.members, self.none]
        out = np.zeros((len(conditions), len(every)))
        for begin in range(0, len(conditions), MOST_EXPECTED):
            part, targets = conditions[begin : begin + MOST_EXPECTED], items[begin : begin + MOST_EXPECTED]
            for column, member in enumerate(every):
                expected = member.expected([condition.only(member.supports) for condition in part])
                out[begin : begin + len(part), column] = expected[np.arange(len(part)), targets]
        return out

    def _profile(self, held: Interactions, event: int) -> dict[str, Any] | None:
        """The value of `attribute` that was known before an event."""
        profiles, name = held.profiles, self.params.attribute
        if profiles is None or not name:
            return None
        codes = profiles.table[profiles.rows[event]]
        for code, attribute in zip(codes.tolist(), profiles.schema.attributes, strict=True):
            if attribute.name == name and code and attribute.values:
                return {name: attribute.values[code - 1]}
        return None

    def report(self) -> list[dict[str, object]]:
        """Weights, gain over no synthesis and its lower 95% bound, by segment."""
        return describe_weights(self.segments, self.params.members)

    def weights(self, conditions: Sequence[Conditions]) -> Float64:
        """float64 [conditions, members + 1]: the weight of each member, the last one of no synthesis.

        A member that does not support a condition has none; where nothing is known but first or later events, or
        nothing at all, popularity takes part.

        Raises:
            SynthesisError: no member supports all that a condition has.
        """
        every = [*self.members, self.none]
        out = np.zeros((len(conditions), len(every)))
        for row, condition in enumerate(conditions):
            segment = segment_of(condition, self.params.attribute)
            plain = condition.given <= {"first", "later"}
            able = [condition.given <= member.supports for member in self.members]
            if not any(able):
                given = ", ".join(sorted(condition.given))
                raise SynthesisError(
                    f"condition {row}: no member of the mixture reads {given} together; leave some out"
                )
            usable = np.array([*able, plain], np.float64)
            weights = np.array(self._segment(segment).weights) * usable
            out[row] = weights / weights.sum() if weights.sum() > 0 else usable / usable.sum()
        return out

    def _segment(self, name: str) -> SegmentWeights:
        known = name.partition(" ")[0]
        even = SegmentWeights([1 / (len(self.members) + 1)] * (len(self.members) + 1))
        return self.segments.get(name) or self.segments.get(known) or self.segments.get("0") or even

    def generate(self, conditions: Sequence[Conditions], streams: RandomStreams, options: SamplingOptions) -> Histories:
        cumulative = np.cumsum(self.weights(conditions), axis=1)
        drawn = (cumulative < streams.uniform(0, MEMBER) * cumulative[:, -1:]).sum(axis=1)
        parts, order = [], []
        for number, member in enumerate([*self.members, self.none]):
            rows = np.flatnonzero(drawn == number)
            if len(rows):
                chosen = [conditions[row].only(member.supports) for row in rows.tolist()]
                parts.append(member.generate(chosen, streams.take(rows), options))
                order += rows.tolist()
        return joined(parts).take(np.argsort(order).astype(np.int64))

    def expected(self, conditions: Sequence[Conditions], steps: int = 1, seed: int = 0) -> Float32:
        check_conditions(conditions, self.supports, self.name)
        weights = self.weights(conditions)
        out = np.zeros((len(conditions), len(self.vocabulary)), np.float32)
        for number, member in enumerate([*self.members, self.none]):
            rows = np.flatnonzero(weights[:, number] > 0)
            if len(rows):
                part = member.expected([conditions[row] for row in rows.tolist()], steps, seed)
                out[rows] += weights[rows, number, None].astype(np.float32) * part
        return out

    def log_prob(self, histories: Histories) -> Float64 | None:
        """See `Synthesizer.log_prob`; members without a likelihood are left out, and the weights are those of a user of
        whom nothing is known."""
        weights = np.array(self._segment("0").weights)
        logs: list[Float64] = []
        kept: list[int] = []
        for number, member in enumerate([*self.members, self.none]):
            own = member.log_prob(histories) if weights[number] > 0 else None
            if own is not None:
                logs.append(own)
                kept.append(number)
        if not logs:
            return None
        shares = weights[kept] / weights[kept].sum()
        mixed: Float64 = logsumexp(np.stack(logs, axis=1), axis=1, b=shares)
        return mixed

    def arrays(self) -> dict[str, AnyArray]:
        every = [*self.members, self.none]
        about: dict[str, Any] = {"segments": self.segments, "members": [member.describe() for member in every]}
        about["joint_training"] = self.joint_training
        arrays: dict[str, AnyArray] = {"about": np.frombuffer(msgspec.json.encode(about), np.uint8)}
        for number, member in enumerate(every):
            arrays |= {f"member-{number}-{name}": array for name, array in member.arrays().items()}
        return arrays

    def restore(self, arrays: Mapping[str, Any]) -> None:
        about = msgspec.json.decode(np.asarray(arrays["about"]).tobytes())
        self.segments = msgspec.convert(about["segments"], dict[str, SegmentWeights])
        self.joint_training = about["joint_training"]
        loaded = []
        for number, (name, params) in enumerate(
            zip((*self.params.members, self.none.name), about["members"], strict=True)
        ):
            prefix = f"member-{number}-"
            own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            loaded.append(registry.load(name, params, self.vocabulary, own))
        *self.members, none = loaded
        self.none = none if isinstance(none, PopularityDraw) else self.none


def _first_events(histories: Histories, row: int, count: int, vocabulary: Vocabulary) -> History:
    """The first `count` events of a row."""
    events = slice(int(histories.starts[row]), int(histories.starts[row]) + count)
    items = [vocabulary.item_ids[item] for item in histories.items[events].tolist()]
    return History(items, histories.kinds[events].tolist(), histories.at[events].tolist(), [None] * count)
