"""The page's answers to its browser, and who is refused: a WSGI application.

Nothing of the bank is told, and nothing decided, without the token that the terminal printed. The page sends it as a
header of each request, never as a cookie: a browser adds a cookie by itself to whatever another page asks for, and
sends it to every other server on this machine, for cookies do not know ports. So a foreign page has nothing to ride on.
Beside that, each of these is refused: a request that names another host (a foreign name that was made to point here:
DNS rebinding), one that another page sends (its Origin, or what the browser says of its site), and a change that does
not say its origin.
"""

import hmac
import json
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.audit.review.desk import Desk

MAX_BODY_BYTES = 4096
"""A decision is a hundred."""

HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""With every answer: nothing is loaded from elsewhere, nobody puts the page into a frame, its address goes nowhere."""

_STATIC = {
    "/review.css": ("review.css", "text/css; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_PICTURE = re.compile(r"/api/picture/(\d{1,9})", re.ASCII)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class RefusedError(Exception):
    """A request that is not answered. Its text is for the person who sent it."""

    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


class Application:
    """Answers requests for a desk.

    Args:
        desk: what is reviewed.
        token: whoever has it may look and decide.
        port: on which the browser reaches this.
    """

    def __init__(self, desk: Desk, *, token: str, port: int) -> None:
        self._desk, self._token = desk, token.encode()
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            kind, body, cache = self._answer(environ)
            status = HTTPStatus.OK
        except RefusedError as refused:
            status, kind, body, cache = refused.status, *_json({"error": str(refused)}), "no-store"
        except InputError as error:
            status, kind, body, cache = HTTPStatus.CONFLICT, *_json({"error": str(error)}), "no-store"
        except (OSError, RuntimeError) as error:  # a full disk, a damaged file: the page shows what is the matter
            status, kind, body, cache = HTTPStatus.INTERNAL_SERVER_ERROR, *_json({"error": str(error)}), "no-store"
        own = [("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", cache)]
        start_response(f"{status.value} {status.phrase}", [*own, *HEADERS])
        return [body]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, bytes, str]:
        """Type, body and Cache-Control of the answer."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        self._check_origin(environ, changes=method != "GET")
        if method == "GET" and path in _STATIC:
            name, kind = _STATIC[path]
            return kind, _page_file(name), "no-cache"
        if method == "GET" and path == "/":
            given = parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0]
            self._check_token(given)
            return "text/html; charset=utf-8", _page_file("index.html"), "no-store"
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        self._check_token(given if scheme == "Bearer" else "")
        if method == "GET" and (picture := _PICTURE.fullmatch(path)):
            cache = "no-store" if self._desk.is_private else "private, max-age=31536000, immutable"
            return "image/png", self._desk.picture(int(picture.group(1))), cache
        match method, path:
            case "GET", "/api/start":
                return *_json({**self._desk.start(), **self._desk.state()}), "no-store"
            case "GET", "/api/state":
                return *_json(self._desk.state()), "no-store"
            case "POST", "/api/decide":
                asked = _body(environ)
                identity = self._desk.decide(asked.get("image"), asked.get("verdict"))  # type: ignore[arg-type]
                return *_json({"id": identity, **self._desk.state()}), "no-store"
            case "POST", "/api/undo":
                number = self._desk.undo(_body(environ).get("id"))  # type: ignore[arg-type]
                return *_json({"image": number, **self._desk.state()}), "no-store"
            case _:
                raise RefusedError(HTTPStatus.NOT_FOUND, f"there is nothing at {method} {path[:80]}")

    def _check_origin(self, environ: dict[str, Any], *, changes: bool) -> None:
        host = environ.get("HTTP_HOST", "")
        if host not in self._hosts:
            expected = " or ".join(sorted(self._hosts))
            raise RefusedError(HTTPStatus.FORBIDDEN, f"this server is {expected}, not {host[:80]!r}")
        origin = environ.get("HTTP_ORIGIN")
        if origin != f"http://{host}" and (changes or origin is not None):
            raise RefusedError(HTTPStatus.FORBIDDEN, f"only the page of this server may ask, not {str(origin)[:80]!r}")
        site = environ.get("HTTP_SEC_FETCH_SITE", "none")
        # To open the page itself from a link elsewhere (a terminal in a browser) is harmless: it needs the token.
        if site not in ("none", "same-origin") and environ.get("HTTP_SEC_FETCH_MODE") != "navigate":
            raise RefusedError(HTTPStatus.FORBIDDEN, "only the page of this server may ask")

    def _check_token(self, given: str) -> None:
        if not hmac.compare_digest(given.encode(errors="replace"), self._token):
            raise RefusedError(HTTPStatus.FORBIDDEN, "open the address that `genmix review` printed, with its token")


def _page_file(name: str) -> bytes:
    return (files(__package__) / "page" / name).read_bytes()


def _json(content: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(content, ensure_ascii=False).encode()


def _body(environ: dict[str, Any]) -> dict[str, Any]:
    """The JSON object that a request brings."""
    if environ.get("CONTENT_TYPE", "").partition(";")[0].strip() != "application/json":
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
    length = environ.get("CONTENT_LENGTH") or ""
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length else HTTPStatus.LENGTH_REQUIRED, "expected a short body"
        )
    try:
        content = json.loads(environ["wsgi.input"].read(int(length)))
    except (ValueError, RecursionError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "expected JSON") from error
    if not isinstance(content, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "expected a JSON object")
    return content
