"""A run's folder: one training at a time, the same run only, and what a restart throws away."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.generators.run_folder import check_same_run, held, provenance_of
from tests.generators.tiny_training import Tiny, position, run

TwoProcesses = Callable[[str], list[dict[str, Any]]]


def test_a_second_training_is_told_who_is_at_work(tmp_path: Path) -> None:
    seen: list[str] = []

    def meddle(images_seen: int) -> None:
        if images_seen == 8:
            with pytest.raises(OverwriteError) as caught:
                run(Tiny(), tmp_path)
            seen.append(str(caught.value))

    run(Tiny(before_step=meddle), tmp_path)
    (message,) = seen
    assert "another training is at work in this folder; wait for it, stop it, or give another folder" in message
    assert f"process {os.getpid()} on " in message
    assert ", since 20" in message
    assert len((tmp_path / "training/losses.jsonl").read_text().splitlines()) == 4  # of one training
    assert position(tmp_path) == 80
    run(Tiny(), tmp_path, steps=21)  # and afterward the folder is free


def test_of_several_processes_all_are_refused(two_processes: TwoProcesses) -> None:
    main, other = two_processes("locked_out")
    assert "another training is at work in this folder" in main["how"]
    assert other["how"].endswith("the training cannot begin; process 0 says why")


def test_a_restart_waits_for_no_lock_and_removes_nothing_of_a_training_at_work(tmp_path: Path) -> None:
    run(Tiny(), tmp_path)
    with held(tmp_path, restart=False):
        with pytest.raises(OverwriteError, match="another training"):
            run(Tiny(), tmp_path, restart=True)
        assert (tmp_path / "training/checkpoint.json").exists()
    run(Tiny(), tmp_path, restart=True, steps=1)
    assert len((tmp_path / "training/losses.jsonl").read_text().splitlines()) == 1


def test_a_killed_runs_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training/.state-000000000020.safetensors.tmp").write_bytes(b"half")
    (tmp_path / "training/lock.json").write_text("not even JSON")
    with held(tmp_path, restart=False):
        assert not (tmp_path / "training/.state-000000000020.safetensors.tmp").exists()
    assert not (tmp_path / "training/lock.json").exists()


def test_what_differs_is_named() -> None:
    record = {"seed": 0, "options": {"rate": 1, "betas": (0.5, 0.9)}, "processes": 1}
    check_same_run(Path("run"), {"seed": 0, "options": {"rate": 1, "betas": [0.5, 0.9]}, "processes": 1}, record)
    with pytest.raises(InputError, match=r"other settings \(options.rate: 2 there, 1 now\)"):
        check_same_run(Path("run"), {**record, "options": {"rate": 2, "betas": [0.5, 0.9]}}, record)
    with pytest.warns(UserWarning, match="begun with 2 processes, going on with 1"):
        check_same_run(Path("run"), {**record, "options": {"rate": 1, "betas": [0.5, 0.9]}, "processes": 2}, record)


def test_weights_have_seen_what_they_started_from_has_seen() -> None:
    record = {"training_set": {"fingerprint": "b"}}
    assert provenance_of(record, None) == record
    found = provenance_of(record, {"weights": "w", "training_set": {"fingerprint": "a"}})
    assert found["training_set"]["fingerprint"] == "a+b"
    assert found["started_from"]["weights"] == "w"
    assert provenance_of(record, {"training_set": {"fingerprint": "b"}})["training_set"]["fingerprint"] == "b"
