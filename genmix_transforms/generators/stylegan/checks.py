"""What users give a StyleGAN, checked before any work starts."""

from collections.abc import Sequence

from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import whole_number
from genmix_transforms.generators.stylegan.network import CONDITIONINGS

RESOLUTIONS = (16, 32, 64, 128, 256, 512, 1024)
"""Of the networks; images of other sizes are padded to the next."""

SMALLEST_IMAGE = 9
"""Mirrored borders must be narrower than the image: 8 pixels have 7 to mirror, and a smaller patch shows nothing."""


def check_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Different names, at least one, as a tuple."""
    if isinstance(classes, str):
        raise InputError(f"StyleGAN: classes must be different names, in a list; got the text {classes!r}")
    classes = tuple(classes)
    if not all(isinstance(name, str) for name in classes):
        raise InputError(f"StyleGAN: classes must be names, got {classes!r}")
    if not classes or len(set(classes)) != len(classes):
        raise InputError(f"StyleGAN: classes must be different names, at least one, got {classes!r}")
    return classes


def check_network(*, resolution: int, conditioning: str, bits: int, norm_epsilon: float, **sizes: int) -> None:
    """What makes a network; ``sizes`` are whole numbers from 1."""
    whole_number(resolution, name="StyleGAN: resolution", least=SMALLEST_IMAGE, most=RESOLUTIONS[-1])
    for name, value in sizes.items():
        whole_number(value, name=f"StyleGAN: {name}", least=1)
    if conditioning not in CONDITIONINGS:
        raise InputError(f"StyleGAN: conditioning must be one of {', '.join(CONDITIONINGS)}, got {conditioning!r}")
    if bits not in (8, 16):
        raise InputError(f"StyleGAN: bits must be 8 or 16, got {bits}")
    if isinstance(norm_epsilon, bool) or not isinstance(norm_epsilon, (int, float)) or not 0 < norm_epsilon < 1:
        raise InputError(f"StyleGAN: norm_epsilon must be a small positive number, got {norm_epsilon!r}")


def check_truncation(psi: float, cutoff: int | None) -> tuple[float, int | None]:
    """Psi and cutoff."""
    if isinstance(psi, bool) or not isinstance(psi, (int, float)) or not -10 < psi < 10:
        raise InputError(f"StyleGAN: psi must be a number, 1 for no truncation and 0 for the mean image, got {psi!r}")
    return float(psi), None if cutoff is None else whole_number(cutoff, name="StyleGAN: cutoff", least=0)


def check_training(
    *,
    gamma: float | None,
    style_mixing: float,
    growing_share: float | None,
    augment: Sequence[str],
    augment_target: float | None,
    r1_interval: int,
    minibatch_group: int,
    **positive: float,
) -> None:
    """The numbers of a training; those in ``positive`` are above 0."""
    for name, value in positive.items():
        if not 0 < value < float("inf"):
            raise InputError(f"{name} must be positive, got {value}")
    if gamma is not None and not 0 <= gamma < float("inf"):
        raise InputError(f"gamma must not be negative, got {gamma}")
    if not 0 <= style_mixing <= 1:
        raise InputError(f"style_mixing must be a probability, got {style_mixing}")
    if growing_share is not None and not 0 < growing_share < 1:
        raise InputError(f"growing_share must lie between 0 and 1, got {growing_share}")
    if augment_target is not None and not -1 < augment_target < 1:
        raise InputError(f"augment_target must lie between -1 and 1, got {augment_target}")
    if augment_target is not None and not augment:
        raise InputError("augment_target: there is nothing to adapt with augment=(); give a policy")
    whole_number(r1_interval, name="r1_interval", least=1)
    whole_number(minibatch_group, name="minibatch_group", least=1)


def check_start(start_resolution: int, *, full: int) -> None:
    """Where the growing starts, below or at the networks' resolution."""
    if start_resolution not in (8, *RESOLUTIONS) or start_resolution > full:
        raise InputError(
            f"start_resolution must be a power of two from 8 to the networks' {full}, got {start_resolution}"
        )


def check_group(batch_size: int, *, processes: int, group: int) -> None:
    """Refuse a batch that the minibatch deviation cannot group."""
    own = batch_size // processes
    if own > group and own % group:
        here = "the batch" if processes == 1 else f"each process's part of the batch of {batch_size}"
        raise InputError(
            f"{here} has {own} images, which groups of {group} do not divide (the minibatch deviation is taken over a "
            f"group): give a multiple of {group * processes}, or another minibatch_group"
        )
