"""Plots of how generators were trained: losses, gradient norms, fidelity and mode coverage by round."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

PANELS: Final = {
    "autoencoder: cross-entropy by epoch": ("autoencoder", ("loss", "held-out-loss")),
    "losses by round": ("adversarial", ("critic-loss", "generator-loss", "distance")),
    "gradient norms by round": ("adversarial", ("critic-gradient", "generator-gradient", "input-gradient")),
    "samples against held-out users": (
        "adversarial",
        ("fidelity", "items", "transitions", "item-coverage", "group-coverage"),
    ),
}

MEMBERS: Final = ("autoregressive", "vae", "gan")
JOINT_PANELS: Final = {
    "log-likelihood of held-out events by round": tuple(f"{name}-log-likelihood" for name in MEMBERS),
    "distance of the critic's features by round": tuple(f"{name}-distance" for name in MEMBERS),
    "losses of the networks by round": tuple(f"{name}-loss" for name in MEMBERS),
    "adversary by round": ("critic-loss", "generator-loss", "distance"),
}


def plot_training(training: Mapping[str, Sequence[Mapping[str, float]]], file: Path) -> None:
    """Write the curves of `GAN.training` to a file, PNG or SVG by its ending."""
    _plot([(title, training[part], names) for title, (part, names) in PANELS.items()], file)


def plot_joint_training(rounds: Sequence[Mapping[str, float]], file: Path) -> None:
    """Write the curves of `Mixture.joint_training` to a file, PNG or SVG by its ending."""
    known = set(rounds[0]) if rounds else set()
    panels = [(title, [name for name in names if name in known]) for title, names in JOINT_PANELS.items()]
    _plot([(title, rounds, names) for title, names in panels], file)


def _plot(panels: Sequence[tuple[str, Sequence[Mapping[str, float]], Sequence[str]]], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (title, rows, names) in zip(figure.subplots(2, 2).ravel(), panels, strict=True):
        _draw(axes, title, rows, names)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def _draw(axes: Any, title: str, rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> None:
    axes.set_title(title, fontsize=11, loc="left")
    for name in names:
        axes.plot(range(1, len(rows) + 1), [row[name] for row in rows], label=name, linewidth=1.6)
    if "fidelity" in names and rows:
        best = max(range(len(rows)), key=lambda row: rows[row]["fidelity"])
        axes.axvline(best + 1, color="#888888", linestyle=":", label="kept")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
