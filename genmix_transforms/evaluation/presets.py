"""Protocols by name: the paper's, one for a CPU, and the paper's made fast."""

from dataclasses import fields, replace
from typing import Any

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.protocol import GRID, Protocol

PAPER = Protocol(
    classifier="vgg16",
    weights="imagenet",
    epochs=100,
    batch_size=8,
    learning_rate=2e-4,
    schedule="constant",
    weight_decay=0.0,
    patience=20,
    tune=GRID,
)
"""Section 3.1 of Lee, Lee, Hong (arXiv 2405.20650): VGG-16 with ImageNet weights, 100 epochs of batches of 8 at 0.0002,
stopped early after 20 epochs. The paper names neither optimiser nor schedule: here AdamW without weight decay, that is
Adam, and a constant rate. It searches blend's share; here every arm searches its own option in as many values."""

SMALL = Protocol(
    classifier="efficientnet_lite0",
    weights="imagenet",
    input_size=96,
    steps=150,
    batch_size=16,
    learning_rate=3e-4,
    head_factor=10.0,
    warmup=0.1,
    clip_norm=1.0,
    validate_every=30,
    tune=3,
)
"""One arm and seed in about half a minute of one core: EfficientNet-Lite0 with ImageNet weights."""

FAST = replace(PAPER, precision="bf16")
"""The same with bf16 arithmetic, for a GPU."""

PRESETS = {"paper": PAPER, "small": SMALL, "fast": FAST}


def preset(name: str, **changes: Any) -> Protocol:
    """A protocol by name, with changes.

    Args:
        name: "paper", "small" or "fast".
        **changes: fields of :class:`Protocol`.

    Raises:
        InputError: no such preset or field, or a value out of its range.

    Example:
        >>> preset("paper", tune=0).epochs
        100
    """
    if name not in PRESETS:
        raise InputError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    known = {field.name for field in fields(Protocol)}
    for change in changes:
        if change not in known:
            raise InputError(f"preset: no such option: {change}; a Protocol has {', '.join(sorted(known))}")
    return replace(PRESETS[name], **changes)
