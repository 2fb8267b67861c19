"""One small audit for all tests of its report: twelve images of the bank are copies, one with a dangerous class name."""

from dataclasses import replace

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.evaluation.audit import AuditSettings, audit
from genmix_transforms.evaluation.protocol import Protocol

QUICK = Protocol(steps=20, batch_size=16, validate_every=20, learning_rate=3e-3)


def renamed(patches, classes):
    return replace(patches, classes=classes)


@pytest.fixture(scope="session")
def audited(splits, banks):
    classes = ("disc", "stripes & <b>")
    good = banks["good"]
    images = good.images.clone()
    train = splits[0]
    for number in (0, 1):
        own, theirs = (good.labels == number).nonzero().flatten(), (train.labels == number).nonzero().flatten()
        images[own[:6]] = train.images[theirs[:6]].flip(-1)
    bank = SyntheticBank(images, good.labels, classes=classes, provenance={"seed": 3, "data": "/home/me"})
    settings = AuditSettings(features="pixels", draws=4, pairs=5)
    parts = tuple(renamed(part, classes) for part in splits)
    return audit(bank, parts, settings=settings, protocol=QUICK)


@pytest.fixture
def gray():
    return torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
