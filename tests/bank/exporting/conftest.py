"""A bank with something known of each image, which an export must keep."""

import pytest
import torch


@pytest.fixture
def full_bank(make_bank):
    """Seven images with everything known of them, or nothing."""

    def make(shape=(1, 5, 4), dtype=torch.uint8, **options):
        return make_bank(
            shape=shape,
            dtype=dtype,
            seeds=torch.tensor([5, -1, 2**63 - 1, 0, 1, 2, 3]),
            source=torch.tensor([0, 1, 0, 1, 0, 1, 0], dtype=torch.int32),
            distance=torch.tensor([0.1, float("nan"), 1e-8, 3.0, 0.0, 1 / 3, float("nan")]),
            flags=torch.tensor([0, 255, 1, 2, 4, 8, 16], dtype=torch.uint8),
            provenance=[{"generator": "dcgan"}, {"generator": "adm"}],
            **options,
        )

    return make
