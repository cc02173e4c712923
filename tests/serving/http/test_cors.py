"""Pages of other origins: none may call the API, unless the settings name them."""

import asyncio
from pathlib import Path

import pytest
from litestar.testing import TestClient

from serving.http.app import build
from serving.http.service import Service
from serving.settings import Settings

PAGE = "https://shop.example"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "content-type"}


async def service_with(tmp_path: Path, origins: str) -> Service:
    return Service(Settings(state=str(tmp_path / "state"), cors_origins=origins))


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [("", None), ("https://other.example", None), (f"https://other.example, {PAGE}", PAGE), ("*", "*")],
)
def test_only_origins_of_the_settings_may_call(
    tmp_path: Path, service: Service, origins: str, allowed: str | None
) -> None:
    # `service` keeps background tasks from starting
    with TestClient(build(asyncio.run(service_with(tmp_path, origins)))) as client:
        answer = client.get("/healthz", headers={"Origin": PAGE})
        preflight = client.options("/v1/items/a", headers=PREFLIGHT)
    assert answer.status_code == 200
    assert answer.headers.get("access-control-allow-origin") == allowed
    assert preflight.headers.get("access-control-allow-origin") in {allowed, PAGE if allowed else None}
    assert ("access-control-allow-methods" in preflight.headers) == (allowed is not None)
