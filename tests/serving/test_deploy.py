"""What stands beside the code: the compose file, Prometheus, the documents."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from serving import metrics
from serving.settings import Settings

ROOT = Path(__file__).parents[2]


def test_compose_has_every_part_and_commands_that_exist() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    assert {"kafka", "redis", "api", "consumer", "archive", "trainer", "prometheus"} <= set(services)
    from typer.main import get_command

    from serving.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    for service in services.values():
        if service.get("image", "").startswith("coldstream"):
            assert service["command"][0] in known
            variables = {name.removeprefix("COLDSTREAM_").lower() for name in service["environment"]}
            assert variables <= set(Settings.__struct_fields__)


def test_compose_satisfies_its_own_client() -> None:
    command = ["docker", "compose", "version"]
    if shutil.which("docker") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no docker compose client is installed")
    subprocess.run(["docker", "compose", "config", "--quiet"], cwd=ROOT, check=True, timeout=60)


def test_alerts_speak_of_metrics_that_exist() -> None:
    text = (ROOT / "deploy" / "alerts.yml").read_text("utf-8")
    named = set(re.findall(r"coldstream_[a-z_]+", text))
    exposed = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    exposed |= {
        f"{family.name}{suffix}" for family in metrics.registry.collect() for suffix in ("", "_total", "_bucket")
    }
    assert named - exposed == set()
    assert len(yaml.safe_load(text)["groups"][0]["rules"]) >= 5


def test_every_metric_is_documented() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert [family.name for family in metrics.registry.collect() if family.name not in text] == []


def test_links_between_documents_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_examples_of_the_event_page_fit_the_schema() -> None:
    from stream.events import decode

    text = (ROOT / "docs" / "events.md").read_text("utf-8")
    examples = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    kinds = [type(decode(" ".join(example.split()).encode(), 1_800_000_000_000)).__name__ for example in examples]
    assert kinds == ["Interaction", "Impression", "Search", "Item", "User"]


def test_the_event_page_names_every_reason() -> None:
    from stream.events import REASONS

    text = (ROOT / "docs" / "events.md").read_text("utf-8")
    assert [reason for reason in REASONS if f"`{reason}`" not in text] == []
