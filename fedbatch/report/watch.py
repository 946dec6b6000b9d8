"""A page that is made anew from disk each time a browser asks for it, on this machine alone."""

from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from fedbatch.core.errors import ConfigError
from fedbatch.report.page import page_of

HOST = "127.0.0.1"
SECONDS = 5
"""After so long a browser asks again, as long as a run is under way."""


def server(paths: Sequence[Path], port: int = 0, trust: Sequence[str] = ()) -> ThreadingHTTPServer:
    """A server of one page on all runs at or below ``paths``, for browsers of this machine.

    Args:
        paths: run folders, or folders of them; runs may begin while it serves.
        port: 0 for any that is free.
        trust: as in `fedbatch.report.page.write_report`.

    Raises:
        FileNotFoundError: there is no run.
        ConfigError: the port is not free.
    """
    page_of(paths, Path(), trust)  # say at once what cannot be read

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """The page, to whoever asks for this machine by its own name: another name may be a trick of a website."""
            own = self.connection.getsockname()[1]
            if self.headers.get("Host") not in (f"{HOST}:{own}", f"localhost:{own}"):
                self.send_error(421, "this server is for browsers of its own machine")
                return
            if self.path != "/":
                self.send_error(404)
                return
            content = page_of(paths, Path(), trust, again_after=SECONDS).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing of requests."""

    try:
        return ThreadingHTTPServer((HOST, port), Page)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--port: {port} cannot be used ({error}); give another, or none") from error


def address(served: ThreadingHTTPServer) -> str:
    """Where a browser finds the page."""
    return f"http://{HOST}:{served.server_address[1]}/"
