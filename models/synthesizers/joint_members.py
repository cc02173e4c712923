"""Which members of a mixture train together, and how they are handed to the joint training."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

from models.data.interactions import Interactions
from models.synthesizers.base import Progress, Synthesizer, SynthesizerContext
from models.synthesizers.conditions import SynthesisError
from models.synthesizers.gan import GAN
from models.synthesizers.neural.synthesizer import SequenceSynthesizer

JOINT_SHARE: Final = 0.8
"""The share of the time that the rounds may take; the GAN's generator goes on in the rest."""


class JointParams(Protocol):
    """What the joint training reads of a mixture's parameters."""

    @property
    def rounds(self) -> int: ...
    @property
    def patience(self) -> int: ...
    @property
    def matching(self) -> float: ...


def joint_parts(members: Mapping[str, Synthesizer]) -> tuple[dict[str, SequenceSynthesizer], GAN]:
    """The networks of events by name, and the GAN.

    Raises:
        SynthesisError: other members are among them, one is missing, or their item vectors differ in size.
    """
    networks = {name: member for name, member in members.items() if isinstance(member, SequenceSynthesizer)}
    gan = members.get(GAN.name)
    if not isinstance(gan, GAN) or not networks or len(networks) + 1 != len(members):
        raise SynthesisError(
            f"mixture: joint training takes gan with autoregressive, vae or both, not {', '.join(members)}; "
            "give such members, or joint=false"
        )
    sizes = {name: member.params.embedding_size for name, member in members.items()}
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise SynthesisError(
            f"mixture: joint training shares one table of item vectors, but embedding_size differs ({given}); "
            "give one size in member_params"
        )
    return networks, gan


def check_joint(names: tuple[str, ...], members: Mapping[str, Synthesizer]) -> None:
    """Raise SynthesisError where the members cannot train together."""
    if len(names) > len(members):
        raise SynthesisError(f"mixture: joint training takes each member once, not {', '.join(names)}")
    joint_parts(members)


def fit_jointly(
    members: Mapping[str, Synthesizer],
    interactions: Interactions,
    params: JointParams,
    context: SynthesizerContext,
    progress: Progress,
) -> list[dict[str, float]]:
    """Fit the members together; the figures of each round. After the rounds the GAN's generator goes on alone, with
    the autoencoder as it is, until sampled histories no longer come closer to real ones."""
    from models.synthesizers.neural.early_stop import PartClock
    from models.synthesizers.neural.joint import JointOptions, JointTraining
    from models.synthesizers.neural.training import FitClock

    networks, gan = joint_parts(members)
    fits = {name: member.prepare(interactions) for name, member in networks.items()}
    training = gan.prepare(interactions)
    adversary = gan.new_adversary(training)
    options = JointOptions(
        rounds=params.rounds,
        patience=params.patience,
        matching=params.matching,
        length=gan.params.length,
        seed=context.seed,
    )
    seconds = context.seconds
    joint = JointTraining(fits, training.reconstruction, adversary, options)
    clock = FitClock(JOINT_SHARE * seconds if seconds is not None else None, options.rounds)
    part_clock = PartClock(seconds, progress)

    def report(share: float, figures: Mapping[str, Any]) -> None:
        progress(JOINT_SHARE * share, figures)

    joint.train(training.encoded, clock, report)
    for name, member in networks.items():
        member.figures = {"epochs": len(joint.rounds), **fits[name].figures()}
    gan.training["autoencoder"] = joint.autoencoder_curve
    part_clock.start_part(JOINT_SHARE, 1.0)
    gan.train_adversary(training, part_clock, adversary=adversary)
    gan.item_embeddings = gan.weights["items"][1:]
    return joint.rounds
