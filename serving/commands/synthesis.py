"""What `coldstream synthesize` and `coldstream probe` do."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from features.activity import History
from features.catalogue import item_row
from models.data.interactions import Interactions
from models.data.profiles import Profile
from models.data.vocabulary import Vocabulary
from models.evaluation.report_page import write_pages
from models.evaluation.synthesis import SynthesisPlan, evaluate_synthesizers
from models.evaluation.synthesis_report import facts, page_of, verdicts
from models.synthesizers import registry, stored
from models.synthesizers.base import SamplingOptions, Synthesizer, SynthesizerContext
from models.synthesizers.conditions import Conditions, SynthesisError
from models.synthesizers.constraint_rules import read_constraints
from models.synthesizers.decoding import Decoding, ItemConstraint
from models.synthesizers.histories import Histories, joined
from serving.commands.experiment_options import ExperimentOptions
from serving.commands.offline_evaluation import EvaluationData, evaluation_request, read_data
from serving.commands.progress import training
from serving.commands.synthesis_options import SynthesisOptions
from serving.settings import Settings
from stream.errors import ColdstreamError
from stream.events import KIND_CODES
from stream.files import replacing
from stream.sources.table_options import TableOptions

SEQUENCE_EPOCHS = 3
"""Epochs of the discriminator that reads sequences."""
SAMPLED = 2_000
"""Users that are generated between two reports of progress."""


class SynthesisRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `synthesize` writes: events of `n` users to `out`, and a report to the folder `report`.

    `compared`: users of the report; `quick` leaves out the discriminator that reads sequences.
    """

    n: int
    out: Path | None
    report: Path | None
    compared: int
    quick: bool


def synthesize(
    settings: Settings,
    table: TableOptions,
    options: SynthesisOptions,
    domain: str | None,
    request: SynthesisRequest,
) -> dict[str, Any]:
    """Generate users into `out`, evaluate into `report`; a summary.

    Raises:
        ColdstreamError: neither is given, a file cannot be read or written, or an option does not fit.
    """
    out, report = request.out, request.report
    if out is None and report is None:
        raise ColdstreamError("give --out FILE for the events, --report DIR for how good they are, or both")
    if out is not None and out.suffix not in {".parquet", ".csv"}:
        raise ColdstreamError(f"--out {out}: give a name that ends in .parquet or .csv")
    names = _names(options.synthesizer)
    if out is not None and len(names) > 1:
        raise ColdstreamError(f"--out takes the events of one synthesizer, not of {len(names)}; name one")
    data = _data(settings, table, options, domain)
    summary: dict[str, Any] = {"source": data.source.name, "synthesizer": ", ".join(names)}
    with training() as progress:
        if out is not None:
            synthesizer = _fitted(data, options, names[0], progress)
            histories = _sampled(data, synthesizer, options, request.n, progress)
            _write(histories.frame(synthesizer.vocabulary), out)
            summary |= {"users": len(histories), "events": len(histories.items), "out": str(out)}
        if report is not None:
            plan = SynthesisPlan(
                generators={name: _params(options.params) for name in names},
                seed=options.seed,
                users=request.compared,
                seconds=60 * options.minutes if options.minutes else None,
                weights=data.preset.weights,
                epochs=0 if request.quick else SEQUENCE_EPOCHS,
                decoding=_decoding(options),
                constraints=partial(_constraints, data, options),
            )
            result = evaluate_synthesizers(data.frame, plan, data.source.name, progress, data.catalogue, data.profiles)
            summary["report"] = str(write_pages(page_of(result), result, report)[1])
            summary["verdicts"] = {
                generator.name: {verdict.use: verdict.passed for verdict in verdicts(generator, result.ceiling)}
                for generator in result.generators
            }
            summary["summary"] = facts(result)
    return summary


def probe(
    settings: Settings, table: TableOptions, options: SynthesisOptions, domain: str | None, *, n: int
) -> list[dict[str, Any]]:
    """Synthetic users: each with its profile and its events (at, kind, item, title, category, value)."""
    names = _names(options.synthesizer)
    if len(names) > 1:
        raise ColdstreamError(f"probe shows the users of one synthesizer, not of {len(names)}; name one")
    data = _data(settings, table, options, domain)
    with training() as progress:
        synthesizer = _fitted(data, options, names[0], progress)
        histories = _sampled(data, synthesizer, options, n, progress)
    titles = data.catalogue.titles if data.catalogue is not None else {}
    categories = data.catalogue.categories if data.catalogue is not None else {}
    frame = histories.frame(synthesizer.vocabulary)
    frame["title"], frame["category"] = frame["item_id"].map(titles), frame["item_id"].map(categories)
    shown = []
    for row in range(len(histories)):
        events = frame.iloc[int(histories.starts[row]) : int(histories.starts[row + 1])]
        profile = histories.profiles[row] if histories.profiles else None
        columns = ["at", "kind", "item_id", "title", "category", "value"]
        records = [
            {name: value for name, value in record.items() if not pd.isna(value)}
            for record in events[columns].to_dict("records")
        ]
        shown.append({"user_id": f"synthetic-{row}", "profile": profile, "events": records})
    return shown


def probe_lines(users: list[dict[str, Any]]) -> Iterator[str]:
    """What `probe` returned, for people."""
    for user in users:
        profile = user["profile"] or {}
        yield f"{user['user_id']}  {' '.join(f'{name}={value}' for name, value in profile.items())}".rstrip()
        for event in user["events"]:
            at = pd.Timestamp(event["at"], unit="ms").strftime("%Y-%m-%d %H:%M")
            value = f" {event['value']:g}" if "value" in event else ""
            title = event.get("title", "")
            category = f" [{event['category']}]" if "category" in event else ""
            yield f"  {at}  {event['kind']:<9} {event['item_id']}{value}  {title}{category}".rstrip()


def _names(text: str) -> list[str]:
    if text == "all":
        return list(registry.REGISTRY)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        registry.synthesizer_class(name)
    if not names:
        raise SynthesisError(f"--synthesizer names none; there are all, {', '.join(registry.REGISTRY)}")
    return names


def _data(settings: Settings, table: TableOptions, options: SynthesisOptions, domain: str | None) -> EvaluationData:
    experiment = ExperimentOptions(events=options.events, source=options.source, seed=options.seed)
    return read_data(evaluation_request(settings, experiment, table, domain))


def _fitted(data: EvaluationData, options: SynthesisOptions, name: str, progress: Any) -> Synthesizer:
    """The synthesizer of `--model` if it is there, else a new one, which is kept there."""
    if options.model is not None and (options.model / stored.FILE).exists():
        synthesizer = stored.load(options.model)
        if synthesizer.name != name:
            raise SynthesisError(
                f"--model {options.model} holds a {synthesizer.name}; name another folder, or --synthesizer "
                f"{synthesizer.name}"
            )
        return synthesizer
    seconds = 60 * options.minutes if options.minutes else None
    checkpoint = options.model / "checkpoint" if options.model is not None else None
    context = SynthesizerContext(options.seed, seconds, checkpoint)
    synthesizer = registry.create(name, _params(options.params), context)

    def report(share: float, figures: Mapping[str, float]) -> None:
        progress(f"fit {name}", share, dict(figures))

    synthesizer.fit(_interactions(data), report)
    if options.model is not None:
        stored.save(synthesizer, options.model)
    return synthesizer


def _sampled(
    data: EvaluationData, synthesizer: Synthesizer, options: SynthesisOptions, n: int, progress: Any
) -> Histories:
    constraints = _constraints(data, options, _interactions(data, synthesizer.vocabulary))
    sampling = SamplingOptions(decoding=_decoding(options), constraints=constraints)
    conditions, rng = [_conditions(options)], np.random.default_rng(options.seed)
    parts: list[Histories] = []
    for start in range(0, n, SAMPLED):
        parts.append(synthesizer.sample(conditions, min(SAMPLED, n - start), rng, sampling))
        progress("sample", min(1.0, (start + SAMPLED) / n), {})
    return joined(parts)


def _interactions(data: EvaluationData, vocabulary: Vocabulary | None = None) -> Interactions:
    return Interactions.from_frame(
        data.frame,
        vocabulary,
        item_features=data.catalogue,
        profiles=data.profiles,
        kind_weights=data.preset.weights,
    )


def _decoding(options: SynthesisOptions) -> Decoding:
    return Decoding(temperature=options.temperature, top_k=options.top_k, nucleus=options.nucleus)


def _constraints(
    data: EvaluationData, options: SynthesisOptions, interactions: Interactions
) -> tuple[ItemConstraint, ...]:
    """The rules of `--constraints` for the items of `interactions`."""
    if options.constraints is None:
        return ()
    catalogue = [item_row(item, 0).record() for part in data.source.catalogue() for item in part]
    return read_constraints(options.constraints, interactions, catalogue)


def _conditions(options: SynthesisOptions) -> Conditions:
    items = [item.strip() for item in options.first.split(",") if item.strip()]
    view = KIND_CODES["view"]
    first = History(items, [view] * len(items), [0] * len(items), [None] * len(items))
    return Conditions(
        first=first,
        profile=_profile(options.profile),
        category=options.category,
        text=options.text,
        events=options.length,
    )


def _profile(text: str) -> Profile | None:
    """`segment=gold,age=30` as attributes; None for an empty text."""
    if not text:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    wrong = next((name for name, equals, _ in pairs if not equals or not name.strip()), None)
    if wrong is not None:
        raise SynthesisError(f"--profile: {wrong!r} is no NAME=VALUE; write segment=gold,age=30")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _params(text: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise SynthesisError(f'--params {text}: no JSON object ({error}); write {{"window": 2}}') from error


def _write(frame: pd.DataFrame, path: Path) -> None:
    """Columns as `coldstream import` reads them; `at` in epoch ms."""
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False)
        else:
            frame.to_csv(temporary, index=False)
