"""One small audit for all tests of its report: twelve images of the bank are copies, and a class has a nasty name."""

from dataclasses import replace

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.evaluation.audit import AuditSettings, audit
from genmix_transforms.evaluation.protocol import Protocol

QUICK = Protocol(steps=20, batch_size=16, validate_every=20, learning_rate=3e-3)
CLASSES = ("disc", "stripes & <b>")


@pytest.fixture(scope="session")
def audited(splits, banks):
    train, validation, test = (
        replace(part.subset(torch.arange(count)), classes=CLASSES)
        for part, count in zip(splits, (40, 24, 24), strict=True)
    )
    good = banks["good"]
    images, labels = [], []
    for number in (0, 1):
        copied = train.images[train.labels == number][:6].flip(-1)
        images += [copied, good.images[good.labels == number][:14]]
        labels += [number] * 20
    bank = SyntheticBank(
        torch.cat(images), torch.tensor(labels), classes=CLASSES, provenance={"seed": 3, "data": "/home/me"}
    )
    settings = AuditSettings(features="pixels", draws=4, pairs=5, calibration=20)
    return audit(bank, (train, validation, test), settings=settings, protocol=QUICK)


@pytest.fixture
def gray():
    return torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
