"""Certificates and keys of a federation for a day: what an administrator would hand out, made on the spot."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIFETIME = timedelta(days=1)


@dataclass(frozen=True)
class Certificates:
    """Files of a SuperLink that speaks TLS.

    Attributes:
        authority: certificate that the others trust.
        server: certificate of the SuperLink.
        key: its private key.
    """

    authority: Path
    server: Path
    key: Path


@dataclass(frozen=True)
class NodeKey:
    """Files of a SuperNode that says who it is."""

    private: Path
    public: Path


def make_certificates(folder: Path, address: str = "127.0.0.1", lifetime: timedelta = LIFETIME) -> Certificates:
    """An authority, whose own key is thrown away, and a certificate for ``localhost`` and an address."""
    root_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name, server_name = _name("fedbatch demo authority"), _name(address)
    root = (
        _builder(root_name, root_name, root_key.public_key(), LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(address))]
    server = (
        _builder(server_name, root_name, server_key.public_key(), lifetime)
        .add_extension(x509.SubjectAlternativeName(here), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    made = Certificates(folder / "authority.pem", folder / "server.pem", folder / "server.key")
    made.authority.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    made.server.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    _write_private(made.key, server_key, serialization.PrivateFormat.PKCS8)
    return made


def make_node_key(folder: Path, name: str) -> NodeKey:
    """A key pair in the form of ``ssh-keygen -t ecdsa -b 384``, which is what Flower reads."""
    key = ec.generate_private_key(ec.SECP384R1())
    made = NodeKey(folder / name, folder / f"{name}.pub")
    _write_private(made.private, key, serialization.PrivateFormat.OpenSSH)
    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    made.public.write_bytes(key.public_key().public_bytes(encoding, form))
    return made


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> None:
    path.touch(mode=0o600)  # before there is anything in it to read
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number())
    return builder.not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + lifetime)
