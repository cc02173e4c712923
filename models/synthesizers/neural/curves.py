"""Plots of how a GAN was trained: losses, gradient norms, fidelity and mode coverage by round."""

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


def plot_training(training: Mapping[str, Sequence[Mapping[str, float]]], file: Path) -> None:
    """Write the curves of `GAN.training` to a file, PNG or SVG by its ending."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    for axes, (title, (part, names)) in zip(figure.subplots(2, 2).ravel(), PANELS.items(), strict=True):
        _draw(axes, title, training[part], names)
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
