"""Files that are whole or not there, also when a write fails or the process is killed."""

import errno
import json
import multiprocessing
import os
import random
import resource
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from genmix_transforms.errors import DiskFullError
from genmix_transforms.files import atomic


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_new_and_replaces_old(tmp_path):
    path = tmp_path / "state.bin"
    atomic.write_bytes(path, b"first")
    assert path.read_bytes() == b"first"
    atomic.write_bytes(path, b"")
    assert path.read_bytes() == b""
    assert names(tmp_path) == ["state.bin"]


def test_text_is_utf8(tmp_path):
    atomic.write_text(tmp_path / "note.txt", "hémangiome, 100 HU ± 5\n")
    assert (tmp_path / "note.txt").read_bytes() == "hémangiome, 100 HU ± 5\n".encode()


def test_json_reads_back_and_is_for_people(tmp_path):
    content = {"classes": ["cyst", "hémangiome"], "steps": 3, "alpha": 0.3, "seed": None}
    atomic.write_json(tmp_path / "run.json", content)
    text = (tmp_path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "hémangiome" in text
    assert text.endswith("}\n")


def test_tensors_read_back_bit_for_bit(tmp_path):
    tensors = {
        "weight": torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).t(),  # not contiguous
        "pixels": torch.arange(6, dtype=torch.uint8).view(2, 3),
        "depth": torch.tensor([0, 65535], dtype=torch.uint16),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "scalar": torch.tensor(7),
    }
    atomic.write_tensors(tmp_path / "net.safetensors", tensors, metadata={"kind": "dcgan"})
    read = load_file(tmp_path / "net.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor.detach())


def test_neighbouring_slices_of_one_tensor_are_saved_apart(tmp_path):
    whole = torch.arange(10.0)
    atomic.write_tensors(tmp_path / "a.safetensors", {"low": whole[:4], "high": whole[4:]})
    read = load_file(tmp_path / "a.safetensors")
    assert read["low"].tolist() == [0, 1, 2, 3]
    assert read["high"].tolist() == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
@pytest.mark.parametrize("shared", [False, True])
def test_failure_keeps_the_old_content_and_leaves_nothing(tmp_path, monkeypatch, broken, shared):
    path = tmp_path / "bank.json"
    atomic.write_bytes(path, b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, fail)
        with pytest.raises(OSError, match="No space left"):
            atomic.write_bytes(path, b"new", shared=shared)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["bank.json"]


def test_interrupt_leaves_nothing(tmp_path, monkeypatch):
    """Ctrl-C is no Exception; it too must clean up."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            atomic.write_bytes(tmp_path / "x", b"new")
    assert names(tmp_path) == []


def test_disk_that_fills_up_in_the_middle(tmp_path):
    """A real half-written file: the system refuses the bytes after the first 100,000."""
    path = tmp_path / "shard.bin"
    atomic.write_bytes(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(DiskFullError) as told:
            atomic.write_bytes(path, b"x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(told.value).startswith(f"{path}: the disk is full (File too large) after 100.0 kB of this file; ")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["shard.bin"]


def test_content_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    """Renamed before flushed, a file may be empty after a power cut."""
    order = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(("flush", os.fstat(fd).st_size)), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(("rename", None)), rename(a, b)))
    atomic.write_bytes(tmp_path / "a", b"12345")
    assert order[0] == ("flush", 5)
    assert order[1] == ("rename", None)
    assert [step for step, _ in order[2:]] == ["flush"]  # the folder


def test_missing_folder_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file or directory: '.*/nowhere/a'"):
        atomic.write_bytes(tmp_path / "nowhere" / "a", b"1")


def test_leftover_of_a_killed_run_is_replaced(tmp_path):
    leftover = tmp_path / ".run.json.tmp"
    leftover.write_bytes(b'{"half": ')
    atomic.write_json(tmp_path / "run.json", {})
    assert names(tmp_path) == ["run.json"]


def test_remove_leftovers_touches_nothing_else(tmp_path):
    for name in (".a.json.tmp", ".b.bin.12ab.tmp", "kept.tmp", ".hidden", "bank.json"):
        (tmp_path / name).write_bytes(b"1")
    atomic.remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "bank.json", "kept.tmp"]


def test_writers_of_one_shared_file_use_different_temporary_names(tmp_path, monkeypatch):
    """Also when their process numbers are equal, as in containers on two machines."""
    seen = []
    rename = os.replace
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(a.name), rename(a, b)))
    for _ in range(2):
        atomic.write_bytes(tmp_path / "a", b"1", shared=True)
    assert seen[0] != seen[1]
    (tmp_path / seen[0]).write_bytes(b"left by a kill")
    atomic.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a"]


def write_for_ever(path, size):
    number = 0
    while True:
        number = (number + 1) % 256
        atomic.write_bytes(path, bytes([number]) * size)


def test_kill_at_any_moment_leaves_a_complete_file(tmp_path):
    """A process that writes 2 MB again and again is killed with -9, ten times."""
    path, size = tmp_path / "checkpoint.bin", 2_000_000
    atomic.write_bytes(path, b"\0" * size)
    wait = random.Random(0)
    seen = set()
    for _ in range(10):
        writer = multiprocessing.get_context("fork").Process(target=write_for_ever, args=(path, size), daemon=True)
        before = path.stat().st_mtime_ns
        writer.start()
        while path.stat().st_mtime_ns == before and writer.is_alive():  # until it has got going
            time.sleep(0.001)
        time.sleep(wait.uniform(0, 0.03))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        content = path.read_bytes()
        assert len(content) == size
        assert content == content[:1] * size
        seen.add(content[0])
        assert set(names(tmp_path)) <= {"checkpoint.bin", ".checkpoint.bin.tmp"}
    assert seen != {0}
    atomic.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["checkpoint.bin"]
