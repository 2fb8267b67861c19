"""Weights of StyleGANs trained elsewhere: NVIDIA's pickles, PyTorch ports' state dicts; no object is unpickled."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.hashing import file_hash
from genmix_transforms.generators.stylegan.convert.nvidia import ForeignWeights, read_nvidia
from genmix_transforms.generators.stylegan.convert.ports import read_port
from genmix_transforms.generators.stylegan.discriminator import StyleGANDiscriminator
from genmix_transforms.generators.stylegan.generator import StyleGAN, adapt_stylegan
from genmix_transforms.generators.stylegan.network import StyleGANNetwork
from genmix_transforms.generators.stylegan.schedule import SMALLEST, channels_up_to, doublings, resolution_at
from genmix_transforms.generators.stylegan.settings import RESOLUTIONS, StyleGANNetworkSettings
from genmix_transforms.generators.weights_file import flatten, is_weights_file, read_weights

log: logging.Logger = logging.getLogger(__name__)

LATENTS = 10_000
"""Drawn for the mean w of a file that has none: of all classes together, but at least a hundred of each."""


def convert_stylegan(
    file: str | Path,
    *,
    classes: Sequence[str] | None = None,
    resolution: int | None = None,
    channels: int | None = None,
    seed: int = 0,
) -> StyleGAN:
    """Read a StyleGAN (version 1) that was trained elsewhere.

    Which of the layouts it is, and all sizes, are recognized from the names and shapes of the weights.

    Args:
        file: NVIDIA's ``.pkl``; or a state dict of rosinality/style-based-gan-pytorch, huangzh13/StyleGAN.pytorch or
            lernapparat, as ``.pt``, ``.pth``, ``.model`` (read with ``weights_only=True``) or ``.safetensors``, bare or
            inside a dict.
        classes: class names; None: "image", or "class-0", "class-1", ... Several names for a network without classes
            adapt it.
        resolution: adapt it to images of this size; None: the file's.
        channels: adapt it to images with so many channels; None: the file's.
        seed: of weights that the file does not have, if it is adapted to larger images.

    Returns:
        A :class:`StyleGAN`. The rule by which it is adapted is that of :func:`adapt_stylegan`.

    Raises:
        InputError: a file of something else, or whose sizes make no StyleGAN; a pickle with more in it than NVIDIA's
            have. Nothing in a file is ever run.
    """
    file = Path(file)
    if isinstance(classes, str):
        raise InputError(f"convert stylegan: classes must be names in a list, got the text {classes!r}")
    of_torch = is_weights_file(file)
    content = flatten(read_weights(file, mmap=True)) if of_torch else []
    weights = None if of_torch else read_nvidia(file)
    try:
        if weights is None:
            tensors = {name: value for name, value in content if isinstance(value, Tensor)}
            weights = read_port(tensors, size=file.stat().st_size)
        generator = _built(weights, classes)
        generator.provenance = {"converted": weights.source, "file": f"sha256:{file_hash(file)}"}
        if weights.notes:
            generator.provenance["notes"] = list(weights.notes)
        if weights.levels_without_rgb:
            generator.provenance["without_to_rgb"] = [resolution_at(level) for level in weights.levels_without_rgb]
        if any(value is not None for value in (classes, resolution, channels)):
            generator = adapt_stylegan(generator, resolution=resolution, channels=channels, classes=classes, seed=seed)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    for note in weights.notes:
        log.warning("%s: %s", file, note)
    return generator


def widths_to_fmap(widths: Sequence[int]) -> tuple[int, int]:
    """``fmap_base`` and ``fmap_max`` of a network, from the channels at 4, 8, ... pixels.

    Example:
        >>> widths_to_fmap([512, 512, 512, 512, 256])
        (8192, 512)
    """
    most = max(widths)
    # A block's width is the base halved so often, rounded down, but one at least.
    base = max((width << (level + 1) for level, width in enumerate(widths) if width > 1), default=1)
    if channels_up_to(len(widths) - 1, fmap_base=base, fmap_max=most) != list(widths):
        raise InputError(f"its channels ({', '.join(map(str, widths))} from 4 pixels on) do not halve as StyleGAN's do")
    return base, most


def _built(weights: ForeignWeights, classes: Sequence[str] | None) -> StyleGAN:
    """A StyleGAN of the sizes that the weights have, with these weights."""
    ours, full = weights.network, weights.full_growth
    embedding = ours.get("mapping.embedding.weight")
    count = 1 if embedding is None else len(embedding)
    if embedding is not None and count == 1:
        raise InputError("a class-conditional network of one class: its class vector can be neither kept nor left out")
    if full not in [doublings(side) for side in RESOLUTIONS]:
        sides = ", ".join(str(SMALLEST << level) for level in range(full + 1)) or "no"
        raise InputError(f"has blocks for {sides} pixels; this release reads networks of {RESOLUTIONS} pixels")
    fmap_base, fmap_max = widths_to_fmap([len(ours[f"synthesis.layers.{2 * level}.bias"]) for level in range(full + 1)])
    settings = StyleGANNetworkSettings(
        fmap_base=fmap_base,
        fmap_max=fmap_max,
        latent_size=ours["synthesis.layers.0.style.weight"].shape[1],
        mapping_layers=sum(name.startswith("mapping.layers.") for name in ours) // 2,
        conditioning="multiply" if embedding is None else "concatenate",
        norm_epsilon=weights.norm_epsilon,
        blurred_bias="synthesis.layers.2.conv.bias" in ours,
    )
    sizes = {"resolution": resolution_at(full), "channels": len(ours[f"synthesis.to_rgb.{full}.bias"])}
    # Compared before memory is asked for: what sizes say and what the file holds may be far apart.
    with torch.device("meta"):
        expected = StyleGANNetwork(settings, classes=count, **sizes).state_dict()
        judged = StyleGANDiscriminator(settings, classes=count, **sizes).state_dict() if weights.discriminator else {}
    mean = ours.pop("mean_w", None)
    if mean is not None:  # one for all classes, elsewhere
        ours["mean_w"] = mean.expand(count, -1).clone()
    optional = {"mean_w", "growth"} | {
        name
        for name in expected
        if name.startswith("synthesis.to_rgb.") and not name.startswith(f"synthesis.to_rgb.{full}.")
    }
    _check_shapes(ours, expected, optional=optional)
    _check_shapes(weights.discriminator or {}, judged, optional=set())

    if classes is None or len(classes) != count:
        classes = ["image"] if count == 1 else [f"class-{number}" for number in range(count)]
    generator = StyleGAN(classes=classes, **sizes, **settings.to_json())
    generator.network.load_state_dict({**generator.network.state_dict(), **ours})
    if "mean_w" not in ours:
        _set_mean_w(generator)
    if weights.discriminator:
        generator.discriminator = generator.new_discriminator()
        generator.discriminator.load_state_dict(weights.discriminator)
    return generator


def _check_shapes(ours: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, optional: set[str]) -> None:
    for name, tensor in expected.items():
        if name not in ours and name not in optional:
            raise InputError(f"expected a StyleGAN, found nothing for {name}")
        if name in ours and ours[name].shape != tensor.shape:
            raise InputError(
                f"{name}: expected the shape {tuple(tensor.shape)}, which the other weights ask for, "
                f"got {tuple(ours[name].shape)}"
            )
    extra = sorted(ours.keys() - expected.keys())
    if extra:
        raise InputError(f"expected a StyleGAN, found more than one has ({', '.join(extra[:4])})")


@torch.no_grad()
def _set_mean_w(generator: StyleGAN) -> None:
    """The mean w of each class, measured: truncation needs it."""
    network = generator.network
    count = max(100, LATENTS // len(generator.classes))
    latents = torch.randn(count, network.latent_size, generator=torch.Generator().manual_seed(0))
    for label in range(len(generator.classes)):
        network.mean_w[label] = network.mapping(latents, torch.full((count,), label)).mean(dim=0)
