"""What no waiting cures: a rejected login, a certificate that is not trusted, TLS on one side only, an unknown host.

Kafka's clients try such a connection again until their time is up, because they cannot tell it from a broker that is
starting. So each server is asked once, directly, and says at once why it does not let a client in.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from stream.addresses import Address, parse_servers
from stream.client import aiokafka_config
from stream.errors import BrokerError

WITHIN_MS: Final = 4_000
TLS_PROBE_S: Final = 2.0
AGAIN_S: Final = 0.5
TRIES: Final = 2
"""A refusal counts if it comes twice: a broker that stops or starts may close a connection, too."""
CLOSED_WITHIN_S: Final = 4.0
"""A server that closes connections without a word does so for this long before that counts as a refusal."""
RESOLVED_WITHIN_S: Final = 6.0
"""The name of a container is not known before it starts."""
CHECK: Final = "check kafka_security (coldstream settings)"


class LoginError(BrokerError):
    """A cluster does not let a client in, and will not without another setting.

    `sure`: whether the cluster said so. It may also have closed the connection, as a proxy does whose broker is away.
    """

    def __init__(self, message: str, *, sure: bool = True) -> None:
        super().__init__(message)
        self.sure = sure


def check_login(bootstrap: str, security: Mapping[str, str] | None = None) -> None:
    """Return if a server lets a client in, or if none can be reached now: that is for others to wait for.

    Raises:
        LoginError: every server that can be reached refuses the client, or no host is known; the cure is named.
    """
    with ThreadPoolExecutor(1) as executor:  # a thread of its own: the caller's may run an event loop
        executor.submit(asyncio.run, _check(parse_servers(bootstrap), aiokafka_config(bootstrap, security))).result()


async def _check(servers: list[Address], config: dict[str, Any]) -> None:
    config.pop("bootstrap_servers")
    started = time.monotonic()
    refusals = 0
    while True:
        answers = await asyncio.gather(*(_problem(server, config) for server in servers))
        problems = [problem for problem in answers if isinstance(problem, LoginError)]
        reached = [problem for problem in answers if not isinstance(problem, OSError)]
        if len(problems) < len(reached):
            return
        if problems:
            refusals += 1
            sure = any(problem.sure for problem in problems) or time.monotonic() - started > CLOSED_WITHIN_S
            if refusals >= TRIES and sure:
                raise LoginError("; ".join(str(problem) for problem in problems))
        elif not all(isinstance(problem, socket.gaierror) for problem in answers):
            return
        elif time.monotonic() - started > RESOLVED_WITHIN_S:
            names = ", ".join(dict.fromkeys(server.host for server in servers))
            raise LoginError(f"the host {names} is not known; check the address of Kafka (setting kafka), and DNS")
        await asyncio.sleep(AGAIN_S)


async def _problem(server: Address, config: Mapping[str, Any]) -> LoginError | OSError | None:
    """Why a server does not let a client in: LoginError if it refuses, OSError if it cannot be reached."""
    protocol = config.get("security_protocol", "PLAINTEXT")
    with_tls = protocol in ("SSL", "SASL_SSL")
    try:
        await _ask(server, config)
    except ssl.SSLCertVerificationError as error:
        return LoginError(
            f"the certificate of {server} is not trusted: {error.verify_message}; "
            "ssl_cafile in kafka_security has to name the certificate of its authority"
        )
    except (ssl.SSLError, ConnectionResetError, ConnectionAbortedError) as error:
        if not with_tls:
            return error
        return LoginError(f"{server} does not speak TLS ({error}), and security_protocol is {protocol}; {CHECK}")
    except (AuthenticationFailedError, SaslAuthenticationFailed) as error:
        return LoginError(
            f"{server} rejected the login ({error}); check sasl_username, sasl_password and sasl_mechanism"
        )
    except (UnsupportedSaslMechanismError, IllegalSaslStateError) as error:
        return LoginError(f"{server} does not accept this kind of login ({error}); {CHECK}")
    except OSError as error:
        return error
    except (KafkaError, TimeoutError, ValueError) as error:
        return await _closed(server, protocol, error)
    return None


async def _ask(server: Address, config: Mapping[str, Any]) -> None:
    """Connect, log in, and ask for the topics."""
    connection: AIOKafkaConnection = await create_conn(server.host, server.port, request_timeout_ms=WITHIN_MS, **config)
    try:
        await connection.send(MetadataRequest([]))
    finally:
        connection.close()


async def _closed(server: Address, protocol: str, error: Exception) -> LoginError | OSError:
    """A server that listens and does not answer: it expects TLS, or a login."""
    if protocol in ("PLAINTEXT", "SASL_PLAINTEXT") and await _speaks_tls(server):
        return LoginError(f"{server} speaks TLS, and security_protocol is {protocol}; {CHECK}")
    if isinstance(error, TimeoutError):
        return OSError(f"{server} does not answer")
    return LoginError(
        f"{server} closed the connection: it may want a login or a client certificate, and security_protocol is "
        f"{protocol}; {CHECK}",
        sure=False,
    )


async def _speaks_tls(server: Address) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent
    try:
        async with asyncio.timeout(TLS_PROBE_S):
            _, writer = await asyncio.open_connection(server.host, server.port, ssl=context)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
