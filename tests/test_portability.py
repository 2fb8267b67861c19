"""What would stop other systems than Linux: modules and calls that only POSIX has, and unnamed encodings.

macOS and Windows themselves are not tried here.
"""

import ast
from pathlib import Path

import pytest

import genmix_transforms

ROOT = Path(genmix_transforms.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

POSIX_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
POSIX_NAMES = {
    "os": {"fork", "forkpty", "geteuid", "getpgid", "getuid", "killpg", "mkfifo", "nice", "pread", "sched_getaffinity",
           "setsid", "sync", "sysconf", "wait", "posix_fadvise", "O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY"},
    "signal": {"SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "alarm", "pause", "setitimer"},
    "mmap": {"MAP_PRIVATE", "MAP_SHARED", "PROT_READ"},
}  # fmt: skip


def unguarded(tree):
    """Imports of POSIX modules outside an ``if`` or a ``try``, and attributes by name that only POSIX has."""
    for node in tree.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        yield from (name for name in names if name in POSIX_MODULES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            room = node.value.id
            yield from [f"{room}.{node.attr}"] * (node.attr in POSIX_NAMES.get(room, ()))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_file_needs_posix(path):
    assert list(unguarded(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import fcntl", ["fcntl"]),
        ("from resource import getrusage", ["resource"]),
        ("import os\nos.fork()", ["os.fork"]),
        ("try:\n    import resource\nexcept ImportError:\n    resource = None", []),
    ],
)
def test_what_is_looked_for_is_found(text, found):
    assert list(unguarded(ast.parse(text))) == found


def unnamed_encodings(tree):
    """Lines on which text is read or written in whatever encoding the system has."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name in ("read_text", "write_text") and isinstance(function, ast.Attribute):
            yield node.lineno
        elif name == "open" and isinstance(function, ast.Name):
            modes = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
            if not any(isinstance(mode, ast.Constant) and "b" in mode.value for mode in modes):
                yield node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_has_an_encoding_that_is_named(path):
    assert list(unnamed_encodings(ast.parse(path.read_text(encoding="utf-8")))) == []
