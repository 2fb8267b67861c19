"""Files that grow by whole lines: nothing that was appended is lost, and nothing half-written is read."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from genmix_transforms.errors import CorruptFileError, OverwriteError, UnwritableError
from genmix_transforms.files.journal import MAX_LINE_BYTES, Journal
from genmix_transforms.files.locking import locked

WRITER = """
import sys
from pathlib import Path
from genmix_transforms.files.journal import Journal
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
journal = Journal(folder / "notes.jsonl", lock=folder / ".lock")
for number in range(count):
    journal.append({"by": name, "number": number})
    print(number, flush=True)
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return make(tmp_path)


def make(folder: Path) -> Journal:
    return Journal(folder / "notes.jsonl", lock=folder / ".lock")


def writer(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_appended_records_are_read_once_each_in_their_order(journal: Journal, tmp_path: Path):
    assert list(journal.new()) == []
    journal.append({"a": 1}, {"b": "größer\n"})
    assert list(journal.new()) == [{"a": 1}, {"b": "größer\n"}]
    make(tmp_path).append({"c": None})
    assert list(journal.new()) == [{"c": None}]
    assert list(journal.new()) == []
    assert list(make(tmp_path).new()) == [{"a": 1}, {"b": "größer\n"}, {"c": None}]


def test_a_line_without_its_end_is_none_and_the_next_writer_cuts_it_off(journal: Journal):
    journal.append({"a": 1})
    with open(journal.path, "ab") as file:
        file.write(b'{"half')
    assert list(journal.new()) == [{"a": 1}]
    journal.append({"b": 2})
    assert list(journal.new()) == [{"b": 2}]
    assert journal.path.read_bytes() == b'{"a": 1}\n{"b": 2}\n'


def test_a_file_of_nothing_but_a_torn_line_becomes_whole(journal: Journal):
    journal.path.write_bytes(b"{")
    journal.append({"a": 1})
    assert journal.path.read_bytes() == b'{"a": 1}\n'


@pytest.mark.parametrize("line", [b"{\n", b"[1]\n", b'{"a": 1, "a": 2}\n', b"x" * (MAX_LINE_BYTES + 1)])
def test_a_whole_line_that_is_no_object_is_refused(journal: Journal, line: bytes):
    journal.append({"a": 1})
    with open(journal.path, "ab") as file:
        file.write(line)
    with pytest.raises(CorruptFileError, match="line 2"):
        list(journal.new())


def test_a_file_that_has_lost_lines_is_refused(journal: Journal):
    journal.append({"a": 1})
    list(journal.new())
    os.truncate(journal.path, 0)
    with pytest.raises(CorruptFileError, match="are gone"):
        list(journal.new())
    journal.path.unlink()
    with pytest.raises(CorruptFileError, match="the file is gone"):
        list(journal.new())


def test_a_lock_that_is_never_free_and_a_folder_in_its_place_are_errors(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("genmix_transforms.files.journal.PATIENCE", 0.05)
    with locked(tmp_path / ".lock", busy=""), pytest.raises(OverwriteError, match="another process has been writing"):
        journal.append({"a": 1})
    journal.path.mkdir()
    with pytest.raises((OSError, UnwritableError)):
        journal.append({"a": 1})


def test_two_processes_lose_nothing_and_a_kill_loses_no_line_that_was_reported(journal: Journal, tmp_path: Path):
    killed, other = writer(tmp_path, "killed", 10**6), writer(tmp_path, "other", 30)
    assert killed.stdout is not None
    assert other.stdout is not None
    reported = [int(killed.stdout.readline()) for _ in range(20)]
    os.kill(killed.pid, signal.SIGKILL)
    reported += [int(line) for line in killed.stdout.read().split()]
    killed.wait()
    assert other.wait() == 0
    journal.append({"by": "me"})
    records = list(journal.new())
    assert [record["number"] for record in records if record["by"] == "other"] == list(range(30))
    written = [record["number"] for record in records if record["by"] == "killed"]
    assert written[: len(reported)] == reported == list(range(len(reported)))
    assert len(written) <= len(reported) + 1
    assert records[-1] == {"by": "me"}
    assert all(json.loads(line) for line in journal.path.read_bytes().splitlines())
