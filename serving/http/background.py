"""Background tasks that outlive their errors."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from features.errors import StoreError
from stream.errors import BrokerError

RETRY_S: Final = 0.5

log = logging.getLogger("coldstream.api")


async def keep_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` until it returns, and restart it when it fails: a task that ends unnoticed would be worse.

    An outage of the store or the broker is logged once, not at every attempt.
    """
    last_message = ""
    while True:
        try:
            await work()
        except (StoreError, BrokerError) as error:
            if str(error) != last_message:
                log.warning("%s: %s; retrying", name, error)
            last_message = str(error)
        except Exception:
            log.exception("%s failed; restarting it", name)
        else:
            return
        await asyncio.sleep(RETRY_S)
