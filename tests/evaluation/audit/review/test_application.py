"""The page's answers, over HTTP: who is refused, and that a decision is in the bank when it is answered."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.evaluation.audit.review.blind import BlindDesk
from genmix_transforms.evaluation.audit.review.desk import BankDesk
from genmix_transforms.evaluation.audit.review.serving import ReviewServer
from tests.evaluation.audit.review.client import Client

DATA = ["/api/start", "/api/state", "/api/picture/0"]


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with ReviewServer(BankDesk(folder, reviewer="A")) as server:
        yield Client(server)


def test_the_page_and_its_files_come_with_headers_that_let_nothing_else_in(client: Client):
    for path, kind in {
        f"/?token={client.server.token}": "text/html; charset=utf-8",
        "/review.js": "text/javascript; charset=utf-8",
        "/review.css": "text/css; charset=utf-8",
        "/icon.svg": "image/svg+xml",
        "/api/start": "application/json",
        "/api/picture/0": "image/png",
        "/api/nothing": "application/json",
    }.items():
        status, content, headers = client("GET", path)
        assert status == (404 if "nothing" in path else 200), path
        assert content
        assert headers["Content-Type"] == kind
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Set-Cookie" not in headers
        assert "Access-Control-Allow-Origin" not in headers


def test_the_page_names_no_other_address_and_has_nothing_inline(client: Client):
    _, page, _ = client("GET", f"/?token={client.server.token}")
    text = page.decode()
    assert "//" not in text.replace("<!doctype", "")
    assert "style=" not in text
    assert "<script>" not in text
    for path in ("/review.js", "/review.css"):
        assert b"http" not in client("GET", path)[1]


@pytest.mark.parametrize("token", [None, "", "Bearer ", "Bearer wrong", "Basic {token}", "{token}", "Bearer {token}x"])
def test_without_the_token_nothing_is_told_and_nothing_decided(client: Client, folder: Path, token: str | None):
    sent = None if token is None else token.format(token=client.server.token)
    for path in DATA:
        status, content, _ = client("GET", path, Authorization=sent)
        assert (status, list(content)) == (403, ["error"])
    decision = {"image": 0, "verdict": "rejected"}
    assert client("POST", "/api/decide", decision, Authorization=sent)[0] == 403
    assert client("POST", "/api/decide", decision, Authorization=sent, Cookie=f"token={client.server.token}")[0] == 403
    assert not (SyntheticBank.load(folder).flags & Flag.REJECTED).any()


def test_the_page_itself_wants_the_token_in_its_address(client: Client):
    for address in ("/", "/?token=", "/?token=wrong", "/?token=%ff%00"):
        status, content, _ = client("GET", address, Authorization=None)
        assert status == 403
        assert "open the address that `genmix review` printed" in content["error"]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", "[::1]:{port}",
     "", "0.0.0.0:{port}", None],
)  # fmt: skip
def test_another_host_is_refused_even_with_the_token(client: Client, folder: Path, host: str | None):
    """DNS rebinding: a page of evil.example whose name was made to point to 127.0.0.1 sends its own name."""
    sent = None if host is None else host.format(port=client.server.port)
    for path in [*DATA, f"/?token={client.server.token}", "/review.js"]:
        assert client("GET", path, Host=sent)[0] in (400, 403)
    origin = f"http://{sent}"
    decision = {"image": 0, "verdict": "rejected"}
    assert client("POST", "/api/decide", decision, Host=sent, Origin=origin)[0] in (400, 403)
    assert not (SyntheticBank.load(folder).flags & Flag.REJECTED).any()


def test_localhost_is_this_machine_too(client: Client):
    host = f"localhost:{client.server.port}"
    assert client("GET", "/api/state", Host=host)[0] == 200
    assert (
        client("POST", "/api/decide", {"image": 0, "verdict": "accepted"}, Host=host, Origin=f"http://{host}")[0] == 200
    )


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "http://127.0.0.1"],
)
def test_another_origin_is_refused_even_with_the_token(client: Client, folder: Path, origin: str | None):
    """CSRF: another page, even one that another server on this machine sent, makes the browser ask."""
    sent = None if origin is None else origin.format(port=client.server.port)
    for path, body in (("/api/decide", {"image": 0, "verdict": "rejected"}), ("/api/undo", {"id": "x"})):
        assert client("POST", path, body, Origin=sent)[0] == 403
    if sent is not None:
        assert client("GET", "/api/state", Origin=sent)[0] == 403
    assert not (SyntheticBank.load(folder).flags & Flag.REJECTED).any()


def test_what_the_browser_says_is_of_another_site_is_refused(client: Client):
    for site in ("cross-site", "same-site"):
        assert client("GET", "/api/picture/0", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")[0] == 403
    assert client("GET", "/api/picture/0", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors")[0] == 200
    # A link in a terminal that is itself a page: opened, if it has the token.
    page = f"/?token={client.server.token}"
    assert client("GET", page, Authorization=None, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_a_form_that_another_page_could_send_is_no_decision(client: Client, kind: str | None):
    assert client("POST", "/api/decide", {"image": 0, "verdict": "rejected"}, Content_Type=kind)[0] == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[1]", 400), (b"\xff", 400), (b"[" * 4000, 400), (b" " * 5000, 413), (b" " * 20000, 413),
     ({"image": 12, "verdict": "accepted"}, 409), ({"image": -1, "verdict": "accepted"}, 409),
     ({"image": True, "verdict": "accepted"}, 409), ({"image": "0", "verdict": "accepted"}, 409),
     ({"image": 0, "verdict": "real"}, 409), ({"image": 0, "verdict": ["accepted"]}, 409), ({}, 409)],
)  # fmt: skip
def test_bad_requests_are_answered_and_decide_nothing(client: Client, body: object, status: int):
    assert client("POST", "/api/decide", body)[0] == status
    assert set(client("GET", "/api/state")[1]["letters"]) == {"."}


def test_what_is_not_there_is_said(client: Client):
    for method, path in (
        ("GET", "/api/decide"),
        ("POST", "/api/start"),
        ("PUT", "/api/state"),
        ("GET", "/../review.js"),
        ("GET", "/page/index.html"),
        ("GET", "/api/picture/x"),
        ("DELETE", "/"),
    ):
        headers = {} if method in ("GET", "POST") else {"Origin": f"http://127.0.0.1:{client.server.port}"}
        assert client(method, path, {} if method == "POST" else None, **headers)[0] == 404, path
    assert client("GET", "/api/picture/12")[0] == 409


def test_pictures_are_the_banks_and_stay_in_the_browsers_own_cache(client: Client):
    _, content, headers = client("GET", "/api/picture/7?v=1")
    picture = Image.open(io.BytesIO(content))
    assert (picture.size, picture.getcolors()) == ((8, 8), [(64, 7)])
    assert headers["Cache-Control"] == "private, max-age=31536000, immutable"


def test_a_decision_is_in_the_bank_when_it_is_answered_and_so_is_its_undoing(client: Client, folder: Path):
    status, answer, _ = client("POST", "/api/decide", {"image": 3, "verdict": "rejected"})
    assert (status, answer["letters"], answer["text"]) == (
        200,
        "...r........",
        "1 of 12 decided: 0 accepted, 1 rejected",
    )
    assert SyntheticBank.load(folder).flags[3] == Flag.NEAR_COPY | Flag.REJECTED
    client("POST", "/api/decide", {"image": 4, "verdict": "accepted"})
    status, answer, _ = client("POST", "/api/undo", {"id": answer["id"]})
    assert (status, answer["image"], answer["letters"]) == (200, 3, "....a.......")
    assert SyntheticBank.load(folder).flags[3] == Flag.NEAR_COPY
    assert client("POST", "/api/undo", {"id": "x"})[0] == 409


def test_two_browsers_and_two_servers_lose_nothing(client: Client, folder: Path):
    with ReviewServer(BankDesk(folder, reviewer="B")) as second:
        other = Client(second)
        for number in range(6):
            assert client("POST", "/api/decide", {"image": 2 * number, "verdict": "accepted"})[0] == 200
            assert other("POST", "/api/decide", {"image": 2 * number + 1, "verdict": "rejected"})[0] == 200
        assert client("GET", "/api/state")[1] == other("GET", "/api/state")[1]
    assert client("GET", "/api/state")[1]["letters"] == "ar" * 6


def test_of_real_patches_no_picture_is_kept_and_nothing_says_which_is_which(folder: Path, patches):
    with ReviewServer(BlindDesk(folder, patches, images=10)) as server:
        client = Client(server)
        _, start, _ = client("GET", "/api/start")
        assert sorted(start) == [
            "answers",
            "classes",
            "labels",
            "letters",
            "marks",
            "mode",
            "name",
            "text",
            "total",
            "version",
        ]
        assert start["marks"] == {}
        headers = [client("GET", f"/api/picture/{number}")[2] for number in range(10)]
        assert {one["Cache-Control"] for one in headers} == {"no-store"}
        for one in headers:
            one.pop("Date", None)
            one.pop("Content-Length", None)
        assert all(one == headers[0] for one in headers)


def test_a_disk_error_is_said_and_decides_nothing(client: Client, monkeypatch: pytest.MonkeyPatch):
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, answer, _ = client("POST", "/api/decide", {"image": 0, "verdict": "rejected"})
    assert status == 500
    assert "the disk is full" in answer["error"]
    monkeypatch.undo()
    assert client("GET", "/api/state")[1]["letters"] == "." * 12
