"""Do synthetic events help users of few events? `coldstream experiment cold-start` on public sets, and its tables.

python -m benchmarks.cold_start --data FOLDER [--sets beauty,movielens-1m] [--k 1,2] [--first-folds 2] [--sample N]
                                [--tuning-users N] [--synthesizers walk,markov] [--out FOLDER] [--show]

Runs one set after another; each goes on where it was. `--show` only prints what is there, as Markdown.
"""

import argparse
import json
from pathlib import Path
from typing import Final

import msgspec

from models.evaluation.report_page import ReportPage, ReportTable, markdown_page
from models.experiments.report import missing_sentence

BEAUTY: Final = "amazon-2014-5core/Beauty"
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "beauty": (
        *("--events", f"{BEAUTY}.parquet", "--map", "user_id=reviewerID,item_id=asin,at=unixReviewTime"),
        *("--kind", "purchase", "--items", f"{BEAUTY}.items.parquet"),
    ),
    "movielens-1m": ("--source", "movielens-1m:ml-1m"),
    "online-retail": ("--source", "online-retail:uci-online-retail"),
    "globo": ("--source", "globo:globo"),
    "complete-journey": ("--source", "complete-journey"),
}
"""The options that name each set; paths lie in the folder of all sets."""
SHOWN: Final = ("Verdicts", "The strongest opponent", "What each arm adds", "A4", "NDCG@10, ")
"""The beginnings of the titles of the tables that are shown."""


def command_of(name: str, data: Path) -> list[str]:
    """The options that name a set, with its paths."""
    options = list(COMMANDS[name])
    for place, option in enumerate(options):
        kind, colon, path = option.partition(":")
        if colon and option.count(":") == 1:
            options[place] = f"{kind}:{data / path}"
        elif option.endswith(".parquet"):
            options[place] = str(data / option)
    return options


def run(chosen: argparse.Namespace, name: str) -> None:
    """Run the command on a set."""
    from serving.cli import app

    options = ["--k", chosen.k, "--seeds", str(chosen.seeds), "--tuning-users", str(chosen.tuning_users)]
    options += ["--synthesizers", chosen.synthesizers, "--report", str(chosen.out / name)]
    for option, value in (("--first-folds", chosen.first_folds), ("--sample", chosen.sample)):
        options += [option, str(value)] if value is not None else []
    app(["experiment", "cold-start", *command_of(name, chosen.data), *options], standalone_mode=False)


def show(file: Path) -> None:
    """The verdicts and main tables of a report, in Markdown."""
    report = json.loads(file.read_bytes())
    size = (
        f"{report['events']:,} events, {report['users']:,} users, {report['items']:,} items; "
        f"{report['cold_users']:,} cold and {report['warm_users']:,} warm users, {len(report['units'])} units of work."
    )
    shown = [msgspec.convert(table, ReportTable) for table in report["tables"]]
    tables = [_short(table) for table in shown if table.title.startswith(SHOWN)]
    facts = [*(f"- {line}" for line in report["verdict"]), missing_sentence(report["missing"]), size, *report["notes"]]
    print(markdown_page(ReportPage(file.parent.name, facts, [], tables)).replace("\n#", "\n##"))


def _short(table: ReportTable) -> ReportTable:
    """The table with shorter names of what was chosen on tuning users."""
    rows = [[cell.replace(" (chosen on tuning users)", ", chosen") for cell in row] for row in table.rows]
    return msgspec.structs.replace(table, rows=rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(), help="the folder that holds the data sets")
    parser.add_argument("--out", type=Path, default=Path(".coldstream/cold-start"), help="where results are kept")
    parser.add_argument("--sets", default="beauty,movielens-1m,online-retail")
    parser.add_argument("--k", default="1,2")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-folds", type=int)
    parser.add_argument("--sample", type=int, help="at most so many cold users in all folds")
    parser.add_argument("--tuning-users", type=int, default=1_000)
    parser.add_argument("--synthesizers", default="walk,markov")
    parser.add_argument("--show", action="store_true", help="only print what is kept")
    chosen = parser.parse_args()
    for name in chosen.sets.split(","):
        if not chosen.show:
            run(chosen, name)
        if (chosen.out / name / "report.json").is_file():
            show(chosen.out / name / "report.json")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
