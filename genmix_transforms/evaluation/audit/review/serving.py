"""The server of the page: waitress, on the loopback address alone.

Waitress has a parser and limits that have been held against attacks for years (sizes, slow clients, smuggled requests),
needs no other package, and calls a plain function. The standard library's server has none of these limits, and says so
in its documentation; starlette with uvicorn brings four packages more, and serves what nobody here asks for.
"""

import logging
import secrets
import socket
from threading import Thread
from types import TracebackType
from typing import Any, Self

from genmix_transforms.errors import InputError, MissingExtraError
from genmix_transforms.evaluation.audit.review.application import MAX_BODY_BYTES, Application
from genmix_transforms.evaluation.audit.review.desk import Desk

HOST = "127.0.0.1"


class ReviewServer:
    """Serves a desk's page until the block ends.

    Args:
        desk: what is reviewed.
        port: 0: any that is free.
        token: None: a random one.

    Attributes:
        url: of the page, with the token.

    Raises:
        MissingExtraError: waitress is not installed.
        InputError: another program has the port.
    """

    def __init__(self, desk: Desk, *, port: int = 0, token: str | None = None) -> None:
        create_server = _waitress()
        self.token: str = secrets.token_urlsafe(32) if token is None else token
        listening = _listen(port)
        self.port: int = int(listening.getsockname()[1])
        self.url: str = f"http://{HOST}:{self.port}/?token={self.token}"
        # A page full of pictures is asked for at once; that they wait for each other is no news.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._server: Any = create_server(
            Application(desk, token=self.token, port=self.port),
            sockets=[listening],
            threads=4,
            ident=None,
            connection_limit=64,
            max_request_header_size=2**14,
            max_request_body_size=2 * MAX_BODY_BYTES,
            clear_untrusted_proxy_headers=True,
        )
        self._is_closing = False
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            self._server.run()
        except (OSError, ValueError):  # its sockets are closed under it
            if not self._is_closing:
                raise

    def wait(self) -> None:
        """Wait for Ctrl-C, which raises KeyboardInterrupt here."""
        self._thread.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        self._server.task_dispatcher.shutdown(cancel_pending=True, timeout=5)  # what is being decided is finished
        self._server.close()
        self._thread.join(timeout=2)


def _waitress() -> Any:
    try:
        from waitress.server import create_server
    except ImportError as error:
        raise MissingExtraError("genmix review needs waitress: pip install 'genmix-transforms[review]'") from error
    return create_server


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--port {port}: {reason}; give another port, or leave it out for any that is free") from error
    return listening
