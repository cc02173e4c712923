"""The rules of the house that no linter knows: `python -m testing.house` prints four numbers, each of which is 0.

Class names that are defined twice in the project; Python files of more than 400 lines; imports that close a circle;
variables and functions whose name says nothing of what they hold.
"""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import grimp

ROOMS: Final = ("stream", "features", "models", "serving", "testing", "benchmarks")
MOST_LINES: Final = 400
EMPTY_NAMES: Final = frozenset({"asked", "found", "made", "one", "said", "told", "wanted"})
"""A reader cannot guess what such a variable holds."""
GENERATED: Final[frozenset[str]] = frozenset()
"""Files that a program writes; they may be longer."""


def source_files(checkout: Path) -> list[Path]:
    """The Python files of a checkout that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    names = subprocess.check_output(command, cwd=checkout, text=True).split()
    return [checkout / name for name in sorted(set(names)) if (checkout / name).is_file()]


def duplicate_classes(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Each name that more than one module-level class has, with the files."""
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        for statement in ast.parse(file.read_text("utf-8")).body:
            if isinstance(statement, ast.ClassDef):
                places[statement.name].append(file)
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def long_files(files: Iterable[Path]) -> dict[Path, int]:
    """Each file of more than `MOST_LINES` lines, with its number of lines."""
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in files if file.name not in GENERATED}
    return {file: length for file, length in lengths.items() if length > MOST_LINES}


def circles(rooms: Iterable[str] = ROOMS) -> list[tuple[str, str]]:
    """(importer, imported) of each import without which the import graph had no circle; empty where it has none."""
    graph = grimp.build_graph(*rooms, exclude_type_checking_imports=True)
    packages = [module for module in graph.modules if graph.find_children(module)]
    return sorted(breaker for package in packages for breaker in graph.nominate_cycle_breakers(package))


def empty_names(files: Iterable[Path]) -> dict[str, str]:
    """Each place (file:line) where a variable, parameter, attribute or function gets one of `EMPTY_NAMES`."""
    places: dict[str, str] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            name = _defined_name(node)
            if name in EMPTY_NAMES:
                places[f"{file}:{getattr(node, 'lineno', 0)}"] = name
    return places


def _defined_name(node: ast.AST) -> str | None:
    """The name that a node defines, if it defines any."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return node.attr
    if isinstance(node, ast.arg):
        return node.arg
    return node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else None


def report(checkout: Path, title: str, offenders: Mapping[str, object]) -> int:
    """Print how many offenders there are, and each of them; the number."""
    print(f"{title}: {len(offenders)}")
    for name, where in offenders.items():
        print(f"  {name}: {where}".replace(f"{checkout}/", ""))
    return len(offenders)


def main(checkout: Path | None = None) -> int:
    """Print the four numbers and their offenders; 1 where one is above 0."""
    checkout = checkout or Path(__file__).resolve().parent.parent
    files = source_files(checkout)
    names = {name: ", ".join(map(str, where)) for name, where in duplicate_classes(files).items()}
    lengths = {str(file): f"{length} lines" for file, length in long_files(files).items()}
    breakers = {f"{importer} -> {imported}": "closes a circle" for importer, imported in circles()}
    offenders = [
        report(checkout, "duplicate class names", names),
        report(checkout, f"files over {MOST_LINES} lines", lengths),
        report(checkout, "import circles", breakers),
        report(
            checkout,
            "names that say nothing",
            {place.replace(f"{checkout}/", ""): name for place, name in empty_names(files).items()},
        ),
    ]
    return int(any(offenders))


if __name__ == "__main__":
    sys.exit(main())
