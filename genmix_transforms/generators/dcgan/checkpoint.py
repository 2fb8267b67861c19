"""Weights of DCGANs trained elsewhere: state dicts as the PyTorch DCGAN example saves them; no object is unpickled."""

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from genmix_transforms.errors import InputError
from genmix_transforms.files.hashing import file_hash
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.dcgan.generator import DCGAN, RESOLUTIONS
from genmix_transforms.generators.dcgan.network import Dimensions, stage_widths
from genmix_transforms.generators.per_class import PerClass
from genmix_transforms.generators.weights_file import flatten, read_weights

_KEY = re.compile(r"(?P<prefix>(?:.*\.)?)main\.(?P<layer>\d+)\.(?P<name>\w+)")


def convert_dcgan(files: Sequence[str | Path], *, classes: Sequence[str] | None = None) -> Generator:
    """Read generator weights laid out as in the PyTorch DCGAN example.

    Sizes, widths and channels are recognized from the weights' shapes, and whether it draws images or volumes.

    Args:
        files: one file of an unconditional network for each class: ``.pth``/``.pt`` (read with ``weights_only=True``)
            or ``.safetensors``; a bare state dict, or one inside a dict, its keys with or without a prefix
            (``module.``, ``netG.``, ...).
        classes: a name for each file; None: "image" for a single file.

    Returns:
        A :class:`DCGAN`, or for several files a :class:`PerClass` of them.

    Raises:
        InputError: a file that holds something else, objects other than tensors (nothing in it is run), or another
            number of names than files.
    """
    if not files:
        raise InputError("convert dcgan: expected at least one file of weights")
    if classes is None:
        if len(files) > 1:
            raise InputError(f"convert dcgan: give a class name for each of the {len(files)} files (--classes a,b)")
        classes = ("image",)
    if len(classes) != len(files):
        raise InputError(
            f"convert dcgan: one file a class, got {len(files)} files and {len(classes)} names ({', '.join(classes)})"
        )
    members = [_convert(Path(file), name) for file, name in zip(files, classes, strict=True)]
    return members[0] if len(members) == 1 else PerClass(members)


def _convert(file: Path, class_name: str) -> DCGAN:
    state = _generator_state(file)
    layers = sorted(int(key.split(".")[1]) for key in state if state[key].ndim in (4, 5))
    if layers != list(range(0, 3 * len(layers), 3)):
        raise InputError(f"{file}: expected convolutions at main.0, main.3, main.6, ..., found them at {layers}")
    weights = [state[f"main.{layer}.weight"] for layer in layers]
    resolution = 2 * 2 ** len(weights)
    if resolution not in RESOLUTIONS:
        raise InputError(
            f"{file}: {len(weights)} convolutions make {resolution} pixels; this release reads {RESOLUTIONS}"
        )
    kernels = {weight.ndim - 2 for weight in weights}
    if len(kernels) > 1:
        raise InputError(f"{file}: some of its convolutions have two dimensions, others three; expected one of these")
    dimensions: Dimensions = 3 if kernels == {3} else 2
    widths = [weight.shape[1] for weight in weights[:-1]][::-1]
    if widths != stage_widths(resolution, widths[0]):
        raise InputError(
            f"{file}: widths {widths[::-1]} are not a DCGAN's, which double from the last layer backwards: "
            f"expected {stage_widths(resolution, widths[0])[::-1]}"
        )
    generator = DCGAN(
        classes=[class_name],
        resolution=resolution,
        channels=weights[-1].shape[1],
        base_width=widths[0],
        latent_size=weights[0].shape[0],
        dimensions=dimensions,
    )
    for key, tensor in generator.network.state_dict().items():
        if key.endswith("num_batches_tracked"):  # files from before PyTorch 0.4.1 do not have it
            state.setdefault(key, tensor)
    try:
        generator.network.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{file}: not laid out as the PyTorch DCGAN example ({error})") from error
    generator.provenance = {"converted": "PyTorch DCGAN example", "file": f"sha256:{file_hash(file)}"}
    return generator


def _generator_state(file: Path) -> dict[str, Tensor]:
    """The generator's tensors in a file, their prefix removed."""
    found: dict[str, dict[str, Tensor]] = {}
    content = flatten(read_weights(file))
    for key, value in content:
        match = _KEY.fullmatch(key)
        if match and isinstance(value, Tensor):
            found.setdefault(match["prefix"], {})[f"main.{match['layer']}.{match['name']}"] = value
    # A generator normalizes after its first layer; a discriminator does not.
    generators = {prefix: state for prefix, state in found.items() if "main.1.running_mean" in state}
    if len(generators) != 1:
        keys = ", ".join(key for key, _ in content[:4])
        raise InputError(
            f"{file}: expected the generator of the PyTorch DCGAN example (main.0.weight, main.1.running_mean, ...), "
            + (f"found several ({', '.join(generators)})" if generators else f"found {keys or 'nothing'}, ...")
        )
    return next(iter(generators.values()))
