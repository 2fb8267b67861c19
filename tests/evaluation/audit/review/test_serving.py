"""The server: where it listens, what it needs, and that nothing that it has answered is lost when it is killed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from genmix_transforms.bank import Flag, SyntheticBank
from genmix_transforms.errors import InputError, MissingExtraError
from genmix_transforms.evaluation.audit.review.desk import BankDesk
from genmix_transforms.evaluation.audit.review.serving import ReviewServer
from tests.evaluation.audit.review.client import Client


def test_it_listens_on_this_machine_alone_with_a_token_of_its_own(folder: Path):
    with ReviewServer(BankDesk(folder)) as one, ReviewServer(BankDesk(folder)) as two:
        assert one.token != two.token
        assert re.fullmatch(r"[\w-]{43}", one.token)
        assert one.url == f"http://127.0.0.1:{one.port}/?token={one.token}"
        assert Client(one)("GET", "/api/state")[0] == 200
        assert Client(one)("GET", "/api/state", Authorization=f"Bearer {two.token}")[0] == 403
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", one.port), timeout=5)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", one.port), timeout=5)


def test_a_port_that_is_taken_or_none_is_refused(folder: Path):
    with ReviewServer(BankDesk(folder)) as server, pytest.raises(InputError, match=f"--port {server.port}: .*in use"):
        ReviewServer(BankDesk(folder), port=server.port)
    with pytest.raises(InputError, match="--port 70000"):
        ReviewServer(BankDesk(folder), port=70000)


def test_without_waitress_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "waitress.server", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'genmix-transforms\[review\]'"):
        ReviewServer(BankDesk(folder))


def run(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """The command in a process of its own, and the page's address."""
    command = [sys.executable, "-m", "genmix_transforms", "review", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return process, found.group()
    raise AssertionError(f"no address; exit code {process.wait()}")


def decide(url: str, image: int, verdict: str) -> str:
    origin, _, token = url.partition("/?token=")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Origin": origin}
    body = json.dumps({"image": image, "verdict": verdict}).encode()
    request = urllib.request.Request(f"{origin}/api/decide", data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["letters"]


def test_a_kill_after_each_decision_loses_none_and_ctrl_c_says_how_many_were_made(folder: Path):
    process, url = run(folder)
    assert decide(url, 0, "rejected") == "r" + "." * 11
    process.kill()
    process.communicate()
    assert (SyntheticBank.load(folder).flags & Flag.REJECTED).bool().nonzero().flatten().tolist() == [0]
    process, url = run(folder)
    assert decide(url, 1, "rejected") == "rr" + "." * 10
    assert decide(url, 2, "accepted") == "rra" + "." * 9
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "2 decisions made; 3 of 12 decided: 1 accepted, 2 rejected" in out
    assert "genmix bank select" in out
