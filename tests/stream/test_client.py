"""One description of a cluster becomes what each of the two Kafka clients takes."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from stream.client import aiokafka_config, kafka_python_config
from stream.errors import StreamError

SCRAM = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "shop",
    "sasl_password": "secret",
}
CLIENT_SCRAM = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_plain_username": "shop",
    "sasl_plain_password": "secret",
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key, good for an hour's tests."""
    folder = tmp_path_factory.mktemp("tls")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=localhost"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem"]
    subprocess.run([openssl, "req", *kind, *files], capture_output=True, check=True)
    return folder / "cert.pem", folder / "key.pem"


def test_without_security_only_the_address_is_passed() -> None:
    assert kafka_python_config("h:1") == {"bootstrap_servers": "h:1"}
    assert aiokafka_config("h:1", {}) == {"bootstrap_servers": "h:1"}


def test_sasl_settings_have_the_same_names_in_both() -> None:
    assert kafka_python_config("h:1", SCRAM) == {"bootstrap_servers": "h:1", **CLIENT_SCRAM}
    assert aiokafka_config("h:1", SCRAM) == {"bootstrap_servers": "h:1", **CLIENT_SCRAM}


def test_tls_files_become_a_context_for_aiokafka(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    security = {
        **SCRAM,
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(cert),
        "ssl_certfile": str(cert),
        "ssl_keyfile": str(key),
        "ssl_check_hostname": "false",
    }
    assert kafka_python_config("h:1", security) == {
        "bootstrap_servers": "h:1",
        **CLIENT_SCRAM,
        **{name: value for name, value in security.items() if name.startswith("ssl_")},
        "security_protocol": "SASL_SSL",
        "ssl_check_hostname": False,
    }
    config = aiokafka_config("h:1", security)
    context = config.pop("ssl_context")
    assert config == {"bootstrap_servers": "h:1", **CLIENT_SCRAM, "security_protocol": "SASL_SSL"}
    assert [dict(certificate["subject"][0])["commonName"] for certificate in context.get_ca_certs()] == ["localhost"]
    assert context.check_hostname is False
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_the_host_name_is_checked_unless_told_otherwise() -> None:
    assert aiokafka_config("h:1", {"security_protocol": "SSL"})["ssl_context"].check_hostname is True


@pytest.mark.parametrize(
    ("security", "message"),
    [
        ({"sasl_plain_username": "shop"}, "sasl_plain_username does not exist; did you mean sasl_username"),
        ({"security_protocol": "TLS"}, "security_protocol='TLS' is not one of PLAINTEXT, SSL"),
        ({"security_protocol": "SASL_SSL"}, "SASL_SSL needs sasl_mechanism, one of PLAIN, SCRAM-SHA-256"),
        ({**SCRAM, "sasl_mechanism": "GSSAPI"}, "sasl_mechanism='GSSAPI' is not one of PLAIN"),
        ({**SCRAM, "sasl_password": ""}, "SCRAM-SHA-512 needs sasl_password"),
        ({**SCRAM, "security_protocol": "SSL"}, "sasl_password has no effect .*=SSL; give security_protocol=SASL_SSL"),
        ({"ssl_cafile": "ca.pem"}, "ssl_cafile has no effect with security_protocol=PLAINTEXT; give .*=SSL"),
        ({"sasl_mechanism": "PLAIN"}, "sasl_mechanism has no effect .*give security_protocol=SASL_PLAINTEXT"),
        ({"security_protocol": "SSL", "ssl_keyfile": __file__}, "ssl_keyfile needs ssl_certfile"),
        ({"security_protocol": "SSL", "ssl_check_hostname": "maybe"}, "'maybe' is neither true nor false"),
    ],
)
def test_what_cannot_be_meant_is_refused(security: dict[str, str], message: str) -> None:
    for config in (kafka_python_config, aiokafka_config):
        with pytest.raises(StreamError, match=message):
            config("h:1", security)


def test_a_tls_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    security = {"security_protocol": "SSL", "ssl_cafile": str(tmp_path / "none.pem")}
    for config in (kafka_python_config, aiokafka_config):
        with pytest.raises(StreamError, match=r"ssl_cafile=.*none\.pem: no such file.*check the path"):
            config("h:1", security)


def test_a_tls_file_that_holds_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(StreamError, match=r"TLS file cannot be used.*check the ssl_\* paths"):
        aiokafka_config("h:1", {"security_protocol": "SSL", "ssl_cafile": str(tmp_path / "ca.pem")})
