"""The options of synthesizing, written once for `synthesize` and `probe`."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from serving.commands.shared_options import with_options


class SynthesisOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is learned from, which synthesizer, what its users have to fit, and how items are drawn."""

    events: Path | None = None
    source: str | None = None
    synthesizer: str = "markov"
    params: str = ""
    model: Path | None = None
    minutes: float | None = None
    first: str = ""
    profile: str = ""
    category: str | None = None
    text: str | None = None
    length: int | None = None
    constraints: Path | None = None
    temperature: float = 1.0
    top_k: int = 0
    nucleus: float = 1.0
    seed: int = 0


def synthesis_options(
    events: Annotated[Path | None, typer.Option(help="Events, CSV or Parquet, plain or gzip; - reads a pipe.")] = None,
    source: Annotated[
        str | None, typer.Option(metavar="NAME[:PATH]", help="A named data set instead of --events.")
    ] = None,
    synthesizer: Annotated[
        str, typer.Option(help="A name; with --report several names separated by commas, or all.")
    ] = "markov",
    params: Annotated[
        str, typer.Option(metavar="JSON", help='Parameters of the synthesizer, such as {"window": 2}.')
    ] = "",
    model: Annotated[
        Path | None, typer.Option(help="Keep the fitted synthesizer in this folder, and use it if it is there already.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Minutes that a fit may take.")] = None,
    first: Annotated[
        str, typer.Option(metavar="ITEM,...", help="First events of the users: what is generated follows them.")
    ] = "",
    profile: Annotated[
        str, typer.Option(metavar="NAME=VALUE,...", help="The users' attributes, such as segment=gold.")
    ] = "",
    category: Annotated[str | None, typer.Option(help="Prefer items of this category.")] = None,
    text: Annotated[str | None, typer.Option(help="Prefer items whose titles are like this text.")] = None,
    length: Annotated[
        int | None, typer.Option(min=1, max=50, help="Events of each user. Default: as in the data.")
    ] = None,
    constraints: Annotated[
        Path | None, typer.Option(help="Rules that generated events keep: a TOML file (docs/constraints.md).")
    ] = None,
    temperature: Annotated[
        float, typer.Option(min=0.01, help="Below 1: likelier items; above 1: stranger ones.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from so many of the likeliest items; 0: from all.")] = 0,
    nucleus: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Draw from the likeliest items that reach this share.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
) -> SynthesisOptions:
    """The options of a command line as one value."""
    return SynthesisOptions(
        events=events,
        source=source,
        synthesizer=synthesizer,
        params=params,
        model=model,
        minutes=minutes,
        first=first,
        profile=profile,
        category=category,
        text=text,
        length=length,
        constraints=constraints,
        temperature=temperature,
        top_k=top_k,
        nucleus=nucleus,
        seed=seed,
    )


with_synthesis_options: Final = with_options("synthesis", synthesis_options)
"""The command with the options of `synthesis_options` added; it gets their value as its argument `synthesis`."""
