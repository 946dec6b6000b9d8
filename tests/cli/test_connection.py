"""``fedbatch doctor HOST:PORT FILE...`` against a TLS server of Python's own, which is no SuperLink."""

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from datetime import timedelta

import pytest

from fedbatch.cli import connection
from fedbatch.cli.commands import run_command
from simulations.deployment.credentials import make_certificates, make_node_key


@contextmanager
def answering(certificates=None):
    """The address of a server with these certificates; in the clear without."""
    server = socket.create_server(("127.0.0.1", 0))
    context = None
    if certificates is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.server, certificates.key)

    def serve():
        with suppress(OSError):  # closed, or a client that went away
            while True:
                client, _ = server.accept()
                with suppress(OSError), client:
                    if context is None:
                        client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    else:
                        context.wrap_socket(client, server_side=True).close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


@pytest.fixture
def made(tmp_path):
    def make(name, **options):
        (tmp_path / name).mkdir()
        return make_certificates(tmp_path / name, **options)

    return make


def test_a_superlink_that_can_be_reached_and_keys_that_are_closed(tmp_path, made, capsys):
    certificates, key = made("good"), make_node_key(tmp_path, "node-0")
    with answering(certificates) as address:
        assert run_command("doctor", address, str(certificates.authority), str(key.private)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{address}: TLSv1.3, certificate valid until ") and len(said) == 3
    assert said[2] == f"{key.private}: for its owner only"


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("expired", "certificate has expired; make a new certificate, and start the SuperLink with it"),
        ("of another host", "IP address mismatch, certificate is not valid for '127.0.0.1'; connect by a name that is"),
        ("of another authority", "; give the certificate of the authority that signed the SuperLink's"),
        ("in the clear", "speaks no TLS; start the SuperLink with its certificate and without --insecure"),
    ],
)
def test_what_would_keep_a_node_out_is_one_line_and_exit_code_1(made, capsys, kind, problem):
    other = made("other").authority
    own = {
        "expired": lambda: made("own", lifetime=timedelta(minutes=-1)),
        "of another host": lambda: made("own", address="10.1.2.3"),
        "of another authority": lambda: made("own"),
        "in the clear": lambda: None,
    }[kind]()
    authority = other if kind in ("of another authority", "in the clear") else own.authority
    with answering(own) as address, pytest.raises(SystemExit) as ended:
        run_command("doctor", address, str(authority))
    said, errors = capsys.readouterr()
    assert ended.value.code == 1 and said.startswith(f"{authority}: certificate, valid until ")
    assert errors.startswith(f"fedbatch: doctor: {address}: ") and problem in errors and errors.count("\n") == 1


def test_nobody_there_and_files_that_are_open_damaged_or_expired(tmp_path, made, capsys, monkeypatch):
    key, damaged = make_node_key(tmp_path, "node-0").private, tmp_path / "damaged.pem"
    key.chmod(0o644)
    damaged.write_bytes(connection.CERTIFICATE + b"\nAAAA\n-----END CERTIFICATE-----\n")
    monkeypatch.setattr("simulations.deployment.credentials.LIFETIME", timedelta(minutes=-1))
    expired = made("expired").authority
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(SystemExit):
        run_command("doctor", str(key), str(damaged), str(expired))
    with pytest.raises(SystemExit):
        run_command("doctor", address)
    opened, unread, old, nobody = capsys.readouterr().err.splitlines()
    assert opened.endswith(f"mode 0644, so that others on this machine can read it; chmod 600 {key}")
    assert f"{damaged}: is no certificate" in unread and f"{expired}: has expired on " in old
    assert nobody.startswith(f"fedbatch: doctor: {address}: Connection refused; start the SuperLink")


@pytest.mark.parametrize("address", ["link.example.org", "link.example.org:http", "no/such.pem", ":8000", "a:99999"])
def test_what_is_neither_an_address_nor_a_file_is_refused(address, capsys):
    assert run_command("doctor", address) == 2
    assert "is neither a file nor host:port of a SuperLink" in capsys.readouterr().err
