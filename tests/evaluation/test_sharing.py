"""Taking turns: every process gets every item, and no two at the same time."""

import multiprocessing
import sys
import time

import pytest
from filelock import FileLock

from genmix_transforms.evaluation import sharing
from genmix_transforms.evaluation.sharing import take_turns


def test_alone_all_come_in_order(tmp_path):
    assert list(take_turns(range(5), lock=lambda item: tmp_path / "new" / f"{item}.lock")) == [0, 1, 2, 3, 4]


def test_what_another_is_at_comes_last(tmp_path, monkeypatch):
    other = FileLock(tmp_path / "1.lock")
    other.acquire()
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        other.release()

    monkeypatch.setattr(sharing.time, "sleep", pause)
    assert list(take_turns(range(4), lock=lambda item: tmp_path / f"{item}.lock")) == [0, 2, 3, 1]
    assert len(pauses) == 1  # only when nothing else was left


def test_an_item_is_locked_while_it_is_worked_on_and_free_afterwards(tmp_path):
    for item in take_turns("ab", lock=lambda item: tmp_path / f"{item}.lock"):
        with pytest.raises(sharing.Timeout):
            FileLock(tmp_path / f"{item}.lock").acquire(timeout=0)
    for item in "ab":
        FileLock(tmp_path / f"{item}.lock").acquire(timeout=0)


def test_a_failure_leaves_no_lock(tmp_path):
    turns = take_turns("ab", lock=lambda item: tmp_path / f"{item}.lock")
    assert next(turns) == "a"
    with pytest.raises(ValueError, match="broken"):
        turns.throw(ValueError("broken"))
    assert list(take_turns("ab", lock=lambda item: tmp_path / f"{item}.lock")) == ["a", "b"]


def write_what_is_missing(folder):
    for item in take_turns(range(12), lock=lambda item: folder / f"{item}.lock"):
        done = folder / f"{item}.txt"
        if not done.exists():
            time.sleep(0.02)
            with open(done, "a") as file:
                file.write("done\n")
    sys.exit(len(list(folder.glob("*.txt"))))


def test_two_processes_do_each_piece_once(tmp_path):
    """A piece that is not there yet is written by exactly one of them; both have all in the end."""
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=write_what_is_missing, args=(tmp_path,), daemon=True) for _ in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(timeout=120)
    assert [process.exitcode for process in started] == [12, 12]
    assert [path.read_text() for path in sorted(tmp_path.glob("*.txt"))] == ["done\n"] * 12
