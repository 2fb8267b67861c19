"""``genmix review``: what it says before it serves, and what it refuses. The rest is in evaluation/audit/review."""

import socket
from pathlib import Path

import pytest
import torch

from genmix_transforms.bank import BankWriter, SyntheticBank
from genmix_transforms.errors import Terminated
from genmix_transforms.evaluation.audit.review.serving import ReviewServer


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    images = torch.zeros(6, 1, 16, 16, dtype=torch.uint8)
    SyntheticBank(images, torch.tensor([0, 0, 1, 1, 2, 2]), classes=["cyst", "hemangioma", "metastasis"]).save(
        tmp_path / "b"
    )
    return tmp_path / "b"


def test_it_says_where_the_page_is_and_ends_with_ctrl_c(genmix, bank: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(server: ReviewServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ReviewServer, "wait", stop)
    outcome = genmix("review", bank, "--reviewer", "A")
    assert outcome.code == 0
    assert "6 decided" in outcome.out
    assert "http://127.0.0.1:" in outcome.out
    assert "0 decisions made" in outcome.out


def test_sigterm_is_told_to_whoever_sent_it(genmix, bank: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(server: ReviewServer) -> None:
        raise Terminated

    monkeypatch.setattr(ReviewServer, "wait", stop)
    outcome = genmix("review", bank)
    assert outcome.code == 143
    assert "0 decisions made" in outcome.out


def test_what_cannot_be_reviewed_is_refused_with_a_sentence(genmix, bank: Path, tmp_path: Path):
    with BankWriter(tmp_path / "empty", classes=["cyst"], image_shape=(1, 16, 16)):
        pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, message in [
            ([tmp_path / "none"], "no such bank"),
            ([tmp_path / "empty"], "a bank without images"),
            ([bank, "--port", port], f"--port {port}: "),
            ([bank, "--blind"], "--blind mixes real patches in: give them with --data"),
            ([bank, "--data", "phantom"], "--data is for --blind"),
            ([bank, "--blind", "--data", tmp_path / "none.npz"], "none.npz"),
        ]:
            outcome = genmix("review", *arguments)
            assert outcome.code == 2, arguments
            assert message in outcome.err


def test_data_of_another_size_or_of_other_classes_is_refused(genmix, bank: Path, tmp_path: Path):
    from genmix_transforms.data import PatchDataset

    images, labels = torch.zeros(6, 1, 16, 16, dtype=torch.uint8), torch.tensor([0, 0, 1, 1, 2, 2])
    same = PatchDataset(images=images, labels=labels, classes=("cyst", "hemangioma", "metastasis"))
    same.save_npz(tmp_path / "same.npz")
    outcome = genmix("review", bank, "--blind", "--data", tmp_path / "same.npz", "--size", 8, "--images", 4)
    assert outcome.code == 2
    assert "1 x 16 x 16" in outcome.err
    other = PatchDataset(images=images, labels=labels, classes=("cyst", "fat", "normal"))
    other.save_npz(tmp_path / "other.npz")
    outcome = genmix("review", bank, "--blind", "--data", tmp_path / "other.npz", "--images", 4)
    assert outcome.code == 2
    assert "is no class of the data" in outcome.err
