"""The application in this process: its routes and its look-up thread, without Kafka and without a store."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from litestar.testing import TestClient

from serving.http.app import build
from serving.http.door import Door
from serving.http.service import Service
from serving.settings import Settings


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service whose background tasks never start: the online store is not open, Kafka is not connected."""

    async def create() -> Service:
        return Service(Settings(state=str(tmp_path / "state")))

    async def start(self: Service) -> None:
        self.lookups.start()

    async def stop(self: Service) -> None:
        await self.lookups.stop()

    monkeypatch.setattr(Service, "start", start)
    monkeypatch.setattr(Service, "stop", stop)
    return asyncio.run(create())


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(Door(build(service)), raise_server_exceptions=False) as client:
        yield client
