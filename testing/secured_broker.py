"""A broker behind TLS that lets in one user with a SCRAM password, and the certificate that its clients trust."""

import datetime as dt
import ipaddress
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stream import jars, node
from stream.broker import Broker
from stream.node import HOST
from testing.ports import free_port

MECHANISM: Final = "SCRAM-SHA-512"
VALID: Final = dt.timedelta(days=1)


@contextmanager
def secured_broker(folder: Path, user: str, password: str, certificate: Path) -> Iterator[Broker]:
    """A started broker with a SASL_SSL listener; it writes the certificate that clients trust to `certificate`."""
    port, inner, controller = free_port(), free_port(), free_port()
    keys = folder / "keys.pem"
    folder.mkdir(parents=True)
    key, chain = self_signed()
    keys.write_bytes(key + chain)
    certificate.write_bytes(chain)
    settings = {
        "listeners": f"SASL_SSL://{HOST}:{port},PLAINTEXT://{HOST}:{inner},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"SASL_SSL://{HOST}:{port},PLAINTEXT://{HOST}:{inner}",
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL",
        "sasl.enabled.mechanisms": MECHANISM,
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keys),
    }
    broker = Broker(folder / "kafka", port, settings=settings)
    _format_with_user(broker, user, password)
    login = {"security_protocol": "SASL_SSL", "sasl_mechanism": MECHANISM, "ssl_cafile": str(certificate)}
    broker.start(security={**login, "sasl_username": user, "sasl_password": password})
    try:
        yield broker
    finally:
        broker.stop()


def self_signed() -> tuple[bytes, bytes]:
    """A private key and its certificate for 127.0.0.1, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kafka")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - VALID)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encodings = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*encodings), certificate.public_bytes(serialization.Encoding.PEM)


def _format_with_user(broker: Broker, user: str, password: str) -> None:
    """Make the log folder with the user in it, before the first start: SCRAM passwords are the cluster's metadata."""
    broker.folder.mkdir(parents=True)
    data = broker.folder / "data"
    node.write(broker.folder, node.properties(broker.port, free_port(), data) | broker.settings)
    scram = f"{MECHANISM}=[name={user},password={password}]"
    tool = ["kafka.tools.StorageTool", "format", "--cluster-id", node.cluster_id(uuid.uuid4()), "--add-scram", scram]
    arguments = [*tool, "--config", str(broker.folder / "server.properties")]
    command = node.command(broker.folder, jars.install(jars.cache_folder()), 128, *arguments)
    subprocess.run(command, check=True, capture_output=True)
