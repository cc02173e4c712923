"""Feast comes without typeguard's checks, and nothing else does."""

import subprocess
import sys

LOOK = """
import typeguard
before = typeguard.typechecked
import {first}
from feast.feature_view import FeatureView
checks = any(name.startswith("check_") for name in FeatureView.__init__.__code__.co_names)
print(typeguard.typechecked is before, checks)
"""


def test_feast_is_imported_unchecked_and_typeguard_stays_what_it_is() -> None:
    assert import_report("features.store") == ["True", "False"]
    assert import_report("feast") == ["True", "True"]


def import_report(first: str) -> list[str]:
    script = LOOK.format(first=first)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return run.stdout.split()
