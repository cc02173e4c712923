"""The command line. Heavy packages are imported by the command that needs them, so that `--help` is instant."""

import asyncio
import importlib.metadata
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from serving.commands import bench, dead_letters, releases
from serving.commands.output import AsJson, DomainOption, show
from serving.process import memory
from serving.settings import Settings, checked, read
from stream.errors import ColdstreamError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="A real-time recommender."
)
features_app = typer.Typer(no_args_is_help=True, help="What is known of users.")
rules_app = typer.Typer(no_args_is_help=True, help="Pin, boost, bury, exclude.")
presets_app = typer.Typer(no_args_is_help=True, help="What is right for a domain.")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(features_app, name="features")
app.add_typer(releases.app, name="releases")
app.add_typer(presets_app, name="presets")
app.add_typer(rules_app, name="rules")
app.add_typer(bench.app, name="bench")

HOUR_MS = 60 * 60 * 1000


class Chosen:
    """The settings that the global options chose."""

    settings: Settings = Settings()


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"coldstream {importlib.metadata.version('coldstream')}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    settings: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    state: Annotated[str | None, typer.Option(help="The folder of everything that is kept.")] = None,
    kafka: Annotated[
        str | None, typer.Option(help="HOST:PORT of a real cluster instead of the embedded broker.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="The API's port.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    version: Annotated[  # noqa: ARG001 - its callback answers
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """A real-time recommender: events change the answer within a quarter of a second, and nothing is lost."""
    from serving.process import logs

    logs.quiet()
    flags = {"state": state, "kafka": kafka, "port": port, "log_format": log_format}
    Chosen.settings = ctx.obj = read(settings, flags=flags)


@app.command()
def up(
    train: Annotated[bool, typer.Option(help="Also run the trainer.")] = True,
    archive: Annotated[bool, typer.Option(help="Also run the archive.")] = True,
    domain: DomainOption = None,
    kafka: Annotated[str | None, typer.Option(help="HOST:PORT of a real cluster.")] = None,
) -> None:
    """Run everything: broker, API, consumer, archive, trainer. Ctrl-C stops it all, cleanly."""
    from serving.process.supervisor import Supervisor, parts_of

    settings = _with(domain=domain, kafka=kafka)

    async def go() -> int:
        supervisor = Supervisor(settings, parts_of(settings, train=train, archive=archive))
        return await supervisor.up(
            lambda: supervisor.say("up", f"API http://{settings.host}:{settings.port}, docs at /docs")
        )

    raise typer.Exit(asyncio.run(go()))


@app.command()
def run(
    speed: Annotated[float, typer.Option(help="How much faster than real time the last weeks are replayed.")] = 900.0,
    weeks: Annotated[float, typer.Option(help="How many of the last weeks are replayed live.")] = 2.0,
    user: Annotated[
        str | None, typer.Option(help="The user to follow; the busiest of the last weeks if left out.")
    ] = None,
) -> None:
    """What `make run` does: everything up, Complete Journey's history in, its last weeks live, with a live view."""
    from serving.commands.live_view import demonstrate

    raise typer.Exit(asyncio.run(demonstrate(Chosen.settings, speed=speed, weeks=weeks, user=user)))


@app.command()
def broker() -> None:
    """Run the embedded Kafka alone."""
    from stream.broker import main as serve

    raise typer.Exit(serve([str(Chosen.settings.state_path / "kafka"), str(Chosen.settings.kafka_port)]))


@app.command()
def topics() -> None:
    """Create the topics that do not exist yet."""
    from stream.admin import create_topics
    from stream.topics import topics as every

    settings = Chosen.settings
    made = create_topics(settings.bootstrap, settings.kafka_security, every(settings.partitions, settings.retention_ms))
    typer.echo(f"created: {', '.join(made) or 'none, all are there'}")


@app.command()
def api() -> None:
    """Run the HTTP API alone."""
    from serving.process.supervisor import FRUGAL

    for name, value in FRUGAL.items():
        os.environ.setdefault(name, value)
    from serving.http.app import main as serve

    raise typer.Exit(serve(Chosen.settings))


@app.command()
def consumer() -> None:
    """Run the consumer alone."""
    from serving.consume.app import main as serve

    raise typer.Exit(serve(Chosen.settings))


@app.command()
def archive() -> None:
    """Run the archive process alone."""
    from serving.consume.archiver import main as serve

    raise typer.Exit(serve(Chosen.settings))


@app.command()
def train(
    once: Annotated[bool, typer.Option("--once", help="One run, with a progress bar.")] = False,
    every: Annotated[str | None, typer.Option(help="A run every so often, such as 15m.")] = None,
    domain: Annotated[
        str | None, typer.Option(help="The domain; if left out, --once takes the setting, a loop trains every domain.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a release: counts within seconds, then the tuned recommenders and their blend; the better is promoted."""
    from serving.train import trainer

    settings = _with(train_every=every, domain=domain)
    if not once:
        if as_json:
            raise ColdstreamError(
                "train --json prints what one run made: give --once too; a trainer that goes on logs what it does, "
                "in JSON with coldstream --log-format json train"
            )
        raise typer.Exit(trainer.main(settings, [] if domain is None else ["--domain", domain]))
    from serving.commands.progress import training
    from serving.consume.archive_lag import wait_for_archive

    memory.keep(memory.TRAINING)
    wait_for_archive(settings, lambda text: typer.echo(text, err=True))
    with training() as progress:
        result = trainer.train_once(settings, settings.domain, progress)
    found = {name: getattr(result, name) for name in ("made", "serving", "reason", "metrics", "refused")}
    show(found, as_json)


@app.command()
def drift(domain: DomainOption = None, as_json: AsJson = False) -> None:
    """How far the newest events are from what the serving release was trained on, and how it does on them."""
    import msgspec

    from serving.train.drift import look

    found = msgspec.to_builtins(look(_with(domain=domain), _with(domain=domain).domain))
    show(found, as_json)


@app.command()
def evaluate(
    events: Annotated[Path | None, typer.Option(help="Events, CSV or Parquet, gz or not.")] = None,
    source: Annotated[str | None, typer.Option(help="A data set instead: NAME or NAME:PATH.")] = None,
    mapping: Annotated[
        str | None, typer.Option("--map", help="user_id=uid,item_id=sku,at=ts[,kind=..,value=..]")
    ] = None,
    users: Annotated[Path | None, typer.Option(help="Profiles, CSV or Parquet.")] = None,
    items: Annotated[Path | None, typer.Option(help="The catalogue, CSV or Parquet.")] = None,
    split: Annotated[str, typer.Option(help="leave-one-out, last-days:N, last-share:S or random:S.")] = "leave-one-out",
    recommender: Annotated[
        str, typer.Option(help="A name, names with commas, auto (the usual candidates and their blend) or all.")
    ] = "auto",
    seen: Annotated[str, typer.Option(help="What a user took: keep or mask; auto asks the tuning cases.")] = "auto",
    trials: Annotated[int, typer.Option(min=1, help="Trials of each recommender's tuning.")] = 12,
    minutes: Annotated[float, typer.Option(min=0.01, help="Minutes of each recommender's tuning.")] = 4.0,
    sample: Annotated[int | None, typer.Option(min=1, help="Ask at most so many users.")] = None,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    min_count: Annotated[int, typer.Option(min=1, help="Leave out items of fewer events.")] = 1,
    preset: Annotated[Path | None, typer.Option(help="A file of coldstream tune: where trials begin.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="Where each test user's 20 best go, Parquet.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="A folder for the report: Markdown, HTML with plots, JSON.")
    ] = None,
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Tune and measure recommenders on your events: every metric, intervals over users, segments, a report."""
    from models.evaluation.report import write
    from serving.commands import offline_evaluation as command

    asked = command.Asked(
        events,
        source,
        mapping,
        users,
        items,
        _with(domain=domain).domain,
        split,
        recommender,
        seen,
        trials,
        minutes,
        sample,
        seed,
        min_count,
        preset,
        _home(domain) if events is not None or domain is not None else None,
    )
    memory.keep(memory.TRAINING)
    found = command.evaluate(asked, predictions)
    if report is not None:
        written = write(found, report)
        typer.echo(f"report: {written[1]}", err=True)
    if as_json:
        show(command.summary(found), True)
    else:
        typer.echo(command.table(found))


@app.command()
def tune(
    events: Annotated[Path | None, typer.Option(help="Events, CSV or Parquet, gz or not.")] = None,
    source: Annotated[str | None, typer.Option(help="A data set instead: NAME or NAME:PATH.")] = None,
    mapping: Annotated[
        str | None, typer.Option("--map", help="user_id=uid,item_id=sku,at=ts[,kind=..,value=..]")
    ] = None,
    users: Annotated[Path | None, typer.Option(help="Profiles, CSV or Parquet.")] = None,
    items: Annotated[Path | None, typer.Option(help="The catalogue, CSV or Parquet.")] = None,
    split: Annotated[str, typer.Option(help="leave-one-out, last-days:N, last-share:S or random:S.")] = "leave-one-out",
    recommender: Annotated[str, typer.Option(help="A name, names with commas, auto or all.")] = "auto",
    seen: Annotated[str, typer.Option(help="What a user took: keep or mask; auto asks the tuning cases.")] = "auto",
    trials: Annotated[
        int, typer.Option(min=1, help="Trials of each recommender, those of earlier runs included.")
    ] = 30,
    minutes: Annotated[float, typer.Option(min=0.01, help="Minutes of each recommender in this run.")] = 10.0,
    sample: Annotated[int | None, typer.Option(min=1, help="Ask at most so many users.")] = None,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    min_count: Annotated[int, typer.Option(min=1, help="Leave out items of fewer events.")] = 1,
    study: Annotated[Path | None, typer.Option(help="The study's file; in the state folder if left out.")] = None,
    preset: Annotated[Path, typer.Option(help="The preset that is written.")] = Path("preset.toml"),
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Seek parameters for your events and write them as a preset; the same command goes on where it was stopped."""
    from serving.commands import hyperparameter_search as command
    from serving.commands.offline_evaluation import Asked

    settings = _with(domain=domain)
    asked = Asked(
        events,
        source,
        mapping,
        users,
        items,
        settings.domain,
        split,
        recommender,
        seen,
        trials,
        minutes,
        sample,
        seed,
        min_count,
        home=_home(domain) if events is not None or domain is not None else None,
    )
    memory.keep(memory.TRAINING)
    show(command.tune(asked, study or settings.state_path / "studies" / "studies.log", preset), as_json)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="CSV or Parquet, gz or not.")],
    mapping: Annotated[
        str | None, typer.Option("--map", help="user_id=uid,item_id=sku,at=ts[,kind=..,value=..]")
    ] = None,
    domain: DomainOption = None,
    users: Annotated[Path | None, typer.Option(help="Profiles, CSV or Parquet.")] = None,
    items: Annotated[
        Path | None, typer.Option(help="The catalogue, CSV or Parquet; --map expires_at=.. is its.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="The kind of every event, where no column says it.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be read.")] = False,
    rejects: Annotated[Path | None, typer.Option(help="Where rejected rows go.")] = None,
    bots: Annotated[int | None, typer.Option(help="Leave out users with more events than this within an hour.")] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="What parts columns; seen in the first line if left out.")
    ] = None,
    time_format: Annotated[str | None, typer.Option(help="How times are written, such as %d.%m.%Y %H:%M.")] = None,
    as_json: AsJson = False,
) -> None:
    """Bring your own events: clean them, report every step, and send them to Kafka."""
    import msgspec

    from serving.commands.data import import_table
    from stream.cleaning import BotRule, CleaningOptions

    cleaning = CleaningOptions(strict=strict, rejects=rejects, bots=BotRule(bots, HOUR_MS) if bots else None)
    report, sent = import_table(
        _with(domain=domain),
        file,
        mapping,
        cleaning,
        kind=kind,
        users=users,
        items=items,
        delimiter=delimiter,
        time_format=time_format,
    )
    if as_json:
        show({"report": msgspec.to_builtins(report), "sent": msgspec.to_builtins(sent)}, as_json)
        return
    typer.echo(report.table())
    show(msgspec.to_builtins(sent), as_json)


@app.command()
def replay(
    source: Annotated[
        str, typer.Argument(help="complete-journey, or NAME:PATH such as movielens-1m:ml-1m")
    ] = "complete-journey",
    speed: Annotated[float | None, typer.Option(help="Times real time; as fast as it goes if left out.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="Only events from this date on (RFC 3339).")] = None,
    until: Annotated[str | None, typer.Option(help="Only events before this date.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="From the beginning, not from where it was.")] = False,
    shift: Annotated[bool, typer.Option(help="Move all times so that the data ends about now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Play a data set into Kafka; started again, it goes on where it was."""
    from serving.commands.data import replay_source

    figures = replay_source(
        Chosen.settings, source, speed=speed, start=start, until=until, restart=restart, shift=shift
    )
    show(figures, as_json)


@app.command()
def recommend(
    user: str,
    n: Annotated[int, typer.Option("-n", help="How many items.")] = 10,
    domain: DomainOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say which events speak for an item.")] = False,
    diversity: Annotated[float | None, typer.Option(min=0, max=1, help="0: the ranking; 1: only what differs.")] = None,
    as_json: AsJson = False,
) -> None:
    """A user's recommendations, with a reason for each, from the running API."""
    query: dict[str, Any] = {"n": n, "explain": explain or not as_json} | ({"domain": domain} if domain else {})
    query |= {} if diversity is None else {"diversity": diversity}
    answer = _ask(f"/v1/users/{user}/recommendations", query)
    if as_json:
        show(answer, as_json)
        return
    typer.echo(f"{user}: {answer['reason']}, release {answer['release']}")
    for place, item in enumerate(answer["items"], 1):
        events = ", ".join(f"{one['kind']} {one['item_id']}" for one in item.get("because") or []) if explain else ""
        about = " · ".join(filter(None, [item.get("title"), item.get("category")]))
        rules = ", ".join(f"{one['action']} by {one['rule']}" for one in item.get("rules") or [])
        why = ", ".join(filter(None, [item["why"]["text"], rules, events]))
        typer.echo(f"{place:3} {item['item_id']:>14} {item['score']:9.4f} {item['reason']:<9} {about} ({why})")


@app.command()
def status(as_json: AsJson = False) -> None:
    """What runs, how far behind it is, what serves, and how fresh answers are.

    Exits with 1 where API, consumer or archive does not answer; a trainer runs only where it is asked for.
    """
    from serving.commands.status import NEEDED, report

    found = report(Chosen.settings)
    show(found, as_json)
    raise typer.Exit(any(found[part] != "up" for part in NEEDED))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Look at everything that a system needs; each finding comes with its cure."""
    from serving.commands.doctor import examine

    findings = examine(Chosen.settings)
    if as_json:
        typer.echo(json.dumps([{name: getattr(one, name) for name in one.__struct_fields__} for one in findings]))
    for one in [] if as_json else findings:
        colour = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}[one.state]
        typer.echo(
            f"{typer.style(f'{one.state:>4}', colour)}  {one.what}: {one.detail}"
            + (f" — {one.cure}" if one.cure else "")
        )
    raise typer.Exit(any(one.state == "fail" for one in findings))


@app.command()
def reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete everything that this system keeps: log, features, archive, releases."""
    from serving.commands.status import is_up

    place = Chosen.settings.state_path
    if is_up(Chosen.settings):
        raise ColdstreamError(f"a system runs on {place}; stop it first")
    if not place.exists():
        typer.echo(f"{place} does not exist; nothing to delete")
        return
    if not yes:
        typer.confirm(f"Delete {place} and everything in it?", abort=True)
    shutil.rmtree(place)
    typer.echo(f"deleted {place}")


@app.command("settings")
def show_settings(as_json: AsJson = False) -> None:
    """The settings in force."""
    show({name: getattr(Chosen.settings, name) for name in Settings.__struct_fields__}, as_json)


@features_app.command("show")
def show_features(user: str, domain: DomainOption = None) -> None:
    """A user's row, from the running API."""
    show(_ask(f"/v1/users/{user}/features", {"domain": domain} if domain else {}), as_json=True)


@features_app.command("rebuild")
def rebuild(as_json: AsJson = False) -> None:
    """Build every feature anew from archive and log, beside the old ones, then swap. The system must be stopped."""
    from serving.commands.rebuild import rebuild_features

    show(rebuild_features(Chosen.settings), as_json)


@rules_app.command("list")
def list_rules(as_json: AsJson = False) -> None:
    """The rules that stand, from the running API."""
    import msgspec

    from serving.commands.rules import ask, line_of
    from serving.rules.rule import Rule

    found = ask(Chosen.settings, "GET", "/v1/rules")
    if as_json:
        show(found, as_json)
        return
    for one in found["rules"]:
        fields = {name: value for name, value in one.items() if name not in {"source", "holds"}}
        holds = ", ".join(one["holds"]) or "not now"
        line = line_of(msgspec.convert(fields, Rule))
        typer.echo(f"{line['id']:<20} {line['does']:<12} {line['about']} · {line['for']} · {holds} ({one['source']})")
    if found["file"] and found["file"]["error"]:
        typer.echo(f"{typer.style('error', typer.colors.RED)}: {found['file']['error']}", err=True)


@rules_app.command("put")
def put_rules(file: Annotated[Path, typer.Argument(help="TOML, or JSON.")], as_json: AsJson = False) -> None:
    """Send the rules of a file to the running API, which keeps them in Kafka."""
    from serving.commands.rules import put

    told = put(Chosen.settings, file)
    if as_json:
        show(told, as_json)
    else:
        typer.echo(f"{len(told)} rules: {', '.join(one['id'] for one in told)}")


@rules_app.command("delete")
def delete_rule(rule: Annotated[str, typer.Argument(help="Its id.")], as_json: AsJson = False) -> None:
    """Take a rule away from the running API."""
    from serving.commands.rules import ask

    show(ask(Chosen.settings, "DELETE", f"/v1/rules/{rule}"), as_json)


@rules_app.command("check")
def check_rules(file: Annotated[Path, typer.Argument(help="TOML, or JSON.")], as_json: AsJson = False) -> None:
    """Read a file of rules and say what each does; needs no running system."""
    import time

    from serving.commands.rules import check

    found = check(file, int(time.time() * 1000))
    if as_json:
        show(found, as_json)
        return
    for one in found:
        note = "" if one["holds now"] else " (not now)"
        typer.echo(f"{one['id']:<20} {one['does']:<12} {one['about']} · {one['for']}{note}")


@presets_app.command("list")
def list_presets(as_json: AsJson = False) -> None:
    """Each domain's preset: where it is from, and what it says in a line."""
    from serving.commands import presets

    rows = presets.listed(Chosen.settings)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{row['domain']:<8} {row['seen']:<10} {row['half life']:<5} {row['encoder']:<12} {row['file']}")


@presets_app.command("show")
def show_preset(domain: str, as_json: AsJson = False) -> None:
    """A domain's preset, as its file has it: save it, change it, and name it in the settings."""
    from serving.commands import presets

    typer.echo(presets.shown(Chosen.settings, domain, as_json))


def _with(**changes: Any) -> Settings:
    import msgspec

    said = {name: value for name, value in changes.items() if value is not None}
    return checked(msgspec.structs.asdict(Chosen.settings) | said)


def _home(domain: str | None) -> Any:
    from serving.domain_presets import preset_for

    settings = _with(domain=domain)
    return preset_for(settings, settings.domain)


def _ask(path: str, query: dict[str, Any]) -> Any:
    import httpx

    url = f"http://{Chosen.settings.host}:{Chosen.settings.port}{path}"
    try:
        answer = httpx.get(url, params=query, timeout=10)
    except httpx.TransportError as error:
        raise ColdstreamError(f"no API at {url} ({error}); start it with coldstream up, or give --port") from error
    if answer.status_code >= 400:
        raise ColdstreamError(f"{answer.status_code}: {answer.json().get('detail', answer.text)}")
    return answer.json()


def main() -> None:
    """The console script: an error of ours is one line, not a traceback."""
    try:
        app()
    except ColdstreamError as error:
        typer.echo(f"{typer.style('error', typer.colors.RED)}: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
