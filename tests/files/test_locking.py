"""Locks: one holder at a time, whatever becomes of the last one."""

import multiprocessing
import os
import platform
import re
import signal

import pytest

from genmix_transforms.errors import OverwriteError
from genmix_transforms.files.locking import locked


def test_only_one_holds_it(tmp_path):
    with locked(tmp_path / "lock", busy="it is taken"):
        with pytest.raises(OverwriteError, match="^it is taken$"), locked(tmp_path / "lock", busy="it is taken"):
            pass
        with locked(tmp_path / "other", busy="it is taken"):
            pass
    with locked(tmp_path / "lock", busy="it is taken"):
        pass


def test_an_error_lets_go_of_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "lock", busy="it is taken"):
        raise KeyboardInterrupt
    with locked(tmp_path / "lock", busy="it is taken"):
        pass


def test_whoever_comes_second_is_told_who_holds_it(tmp_path):
    note = tmp_path / "lock.json"
    with locked(tmp_path / "lock", busy="it is taken", note=note):
        with (
            pytest.raises(
                OverwriteError,
                match=rf"^it is taken \(process {os.getpid()} on {re.escape(platform.node())}, since \d{{4}}-.*\)$",
            ),
            locked(tmp_path / "lock", busy="it is taken", note=note),
        ):
            pass
        note.write_text("{")  # a holder that has only just begun
        with (
            pytest.raises(OverwriteError, match="^it is taken$"),
            locked(tmp_path / "lock", busy="it is taken", note=note),
        ):
            pass
    assert not note.exists()


def hold(path, held):
    with locked(path, busy="it is taken"):
        held.set()
        signal.pause()


def test_it_ends_with_its_holder(tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "lock", held))
    process.start()
    assert held.wait(60)
    with pytest.raises(OverwriteError, match="it is taken"), locked(tmp_path / "lock", busy="it is taken"):
        pass
    process.kill()
    with locked(tmp_path / "lock", busy="it is taken", patience=60):
        pass
    process.join()


def test_what_cannot_be_locked(tmp_path):
    (tmp_path / "lock").mkdir()
    with (
        pytest.raises(OverwriteError, match=r"lock cannot be locked \(Is a directory\); is it a file of yours\?"),
        locked(tmp_path / "lock", busy="it is taken"),
    ):
        pass
