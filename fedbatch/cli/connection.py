"""``fedbatch doctor HOST:PORT FILE...``: what would keep a machine out of a federation, told before it joins.

``flwr run`` says of any certificate that it cannot accept that the SuperLink is not available, and of an address where
nobody is a SuperNode says only that it tries again.
"""

import socket
import ssl
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from fedbatch.core import private_file
from fedbatch.core.errors import ConfigError
from fedbatch.core.visible import visible

SECONDS = 10.0
"""That a SuperLink may take to answer."""
CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
OTHER_AUTHORITY = "give the certificate of the authority that signed the SuperLink's"
REMEDIES = {
    9: "set the clocks of both machines",
    10: "make a new certificate, and start the SuperLink with it",
    62: "connect by a name that is in the certificate, or make one with this name (subjectAltName)",
    64: "connect by a name that is in the certificate, or make one with this address (subjectAltName)",
}
"""By the number of OpenSSL's error (X509_V_ERR_...)."""


class _Problem(Exception):
    """What is wrong, and the remedy."""


def main(arguments: Sequence[str]) -> bool:
    """Check addresses and files, in the order in which they are given; a line for each. Whether all is well.

    Args:
        arguments: ``host:port`` of SuperLinks; certificates of authorities that they are checked by, else those that
            the system trusts; and files that nobody else may read, such as keys.

    Raises:
        ConfigError: neither an address nor a file.
    """
    files = [Path(each) for each in arguments if Path(each).is_file()]
    authorities = [path for path in files if CERTIFICATE in path.read_bytes()]
    is_well = True
    for each in arguments:
        path = Path(each)
        try:
            if path in authorities:
                said = _certificate(path)
            elif path in files:
                said = _private(path)
            else:
                said = _superlink(each, authorities)
        except _Problem as problem:
            is_well = False
            print(f"fedbatch: doctor: {visible(problem)}", file=sys.stderr)
        else:
            print(visible(f"{each}: {said}"))
    return is_well


def _certificate(path: Path) -> str:
    """Until when all certificates of a file are valid."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise _Problem(f"{path}: is no certificate that can be read ({error}); copy it again") from error
    until = min(each.not_valid_after_utc for each in found)
    if until < datetime.now(UTC):
        raise _Problem(f"{path}: has expired on {until:%Y-%m-%d %H:%M} UTC; get the authority's new one")
    return f"certificate, valid until {until:%Y-%m-%d %H:%M} UTC"


def _private(path: Path) -> str:
    if problem := private_file.exposed(path):
        raise _Problem(problem)
    return "for its owner only"


def _superlink(address: str, authorities: Sequence[Path]) -> str:
    """What a SuperLink answers to a TLS handshake, as a SuperNode and ``flwr run`` begin one."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"{address} is neither a file nor host:port of a SuperLink, such as link.example.org:8000")
    context = ssl.create_default_context()
    try:
        for path in authorities:
            context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise _Problem(f"{authorities[0]}: is no certificate that can be read ({error.reason})") from error
    host = host.strip("[]")  # of an IPv6 address
    try:
        with (
            socket.create_connection((host, int(port)), timeout=SECONDS) as raw,
            context.wrap_socket(raw, server_hostname=host) as link,
        ):
            until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str((link.getpeercert() or {})["notAfter"])), UTC)
            return f"{link.version()}, certificate valid until {until:%Y-%m-%d %H:%M} UTC"
    except ssl.SSLCertVerificationError as error:
        remedy = REMEDIES.get(error.verify_code, OTHER_AUTHORITY)
        raise _Problem(f"{address}: {error.verify_message.rstrip('.')}; {remedy}") from error
    except ssl.SSLError as error:
        raise _Problem(
            f"{address}: speaks no TLS; start the SuperLink with its certificate and without --insecure"
        ) from error
    except OSError as error:
        remedy = "start the SuperLink with --host 0.0.0.0 and this port, and let the firewall pass it"
        raise _Problem(f"{address}: {error.strerror or error}; {remedy}") from error
