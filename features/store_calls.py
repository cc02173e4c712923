"""Calls of the online store: whatever its libraries raise becomes a StoreError with the cause and the cure."""

import sqlite3
from collections.abc import Callable
from typing import Final, TypeVar

from features.database_check import CURE, store_error
from features.errors import StoreDamagedError, StoreError

T = TypeVar("T")

HINTS: Final = {
    "Cluster mode is not enabled": "it is no cluster: write redis:// in store",
    "MovedError": "it is a cluster: write redis+cluster:// in store",
    "No master found": "correct the name of the master in store (redis+sentinel://HOST:PORT/MASTER)",
    "CERTIFICATE_VERIFY_FAILED": "give the certificate of its authority: ?ssl_ca_certs=FILE behind the address",
    "handshake operation timed out": "does it take TLS? Write redis instead of rediss if not",
}
"""What is wrong with the setting `store`, by a part of the error's text."""


def raising_store_errors(call: Callable[[], T]) -> T:
    """The result of `call`. Raises StoreError."""
    import redis.exceptions
    from google.protobuf.message import DecodeError

    try:
        return call()
    except sqlite3.Error as error:
        raise store_error(error) from error
    except DecodeError as error:
        raise StoreDamagedError(f"a row of the online store is damaged ({error}); {CURE}") from error
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError) as error:
        cause = f"{type(error).__name__}: {error}"
        hint = next((f"; {words}" for sign, words in HINTS.items() if sign in cause), "")
        raise StoreError(f"the online store does not answer: {cause}{hint}") from error
