"""How many images are marked, and how many somebody has looked at."""

import torch

from genmix_transforms.bank import Flag
from genmix_transforms.bank.decisions import Decisions
from genmix_transforms.bank.manifest import read_manifest
from genmix_transforms.bank.marks import count_marks


def test_flags_and_decisions_are_counted(make_bank, tmp_path):
    flags = torch.zeros(7, dtype=torch.uint8)
    flags[:3] = Flag.NEAR_COPY
    flags[2] |= Flag.USER_1
    make_bank(flags=flags).save(tmp_path / "bank")
    manifest = read_manifest(tmp_path / "bank")
    assert count_marks(tmp_path / "bank", manifest) == (
        {"near_copy": 3, "user_1": 1},
        {"accepted": 0, "rejected": 0, "open": 7},
    )
    decisions = Decisions(tmp_path / "bank", manifest)
    for row, verdict in enumerate(("rejected", "rejected", "accepted")):
        decisions.decide("bank-00000.safetensors", row, verdict)
    marks = count_marks(tmp_path / "bank", manifest)
    assert marks.flags == {"near_copy": 3, "rejected": 2, "user_1": 1}
    assert marks.decisions == {"accepted": 1, "rejected": 2, "open": 4}
