"""Checkpoints of OpenAI's guided-diffusion: recognized by the weights' shapes, checked, and brought under our names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.hashing import file_hash
from genmix_transforms.generators.adm.classifier import NoisyClassifier
from genmix_transforms.generators.adm.configuration import OFFICIAL, OFFICIAL_CLASSIFIERS, ADMConfiguration
from genmix_transforms.generators.adm.network import build_network
from genmix_transforms.generators.weights_file import flatten, read_weights

_KEY = re.compile(
    r"(?P<prefix>(?:.*?\.)??)"
    r"(?P<key>(?:time_embed|label_emb|input_blocks|middle_block|output_blocks|out)\.(?:\w+\.)*\w+)"
)
_ON_THE_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)/(?P<file>[\w./-]+\.(?:pt|pth|safetensors))")

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0", "qkv": "qkv"}


@dataclass(frozen=True)
class Checkpoint:
    """What a file held.

    Args:
        name: of the file.
        kind: "network" (draws images), "upsampler" or "classifier".
        configuration: its flags.
        network: the weights, in a network of ours.
        sha256: of the file.
    """

    name: str
    kind: str
    configuration: ADMConfiguration
    network: Any
    sha256: str

    def class_names(self, classes: Sequence[str] | None = None) -> list[str]:
        """Names for the classes of a network: those given, or class-0000, class-0001, ..., or "image" for one without.

        Raises:
            InputError: an upsampler or classifier, which draws nothing; or another number of names.
        """
        if self.kind != "network":
            raise InputError(f"{self.name}: an ADM {self.kind}, which draws no images by itself")
        flags = self.configuration
        count = flags.num_classes if flags.class_cond else 1
        if classes is None:
            return [f"class-{number:04d}" for number in range(count)] if flags.class_cond else ["image"]
        if len(classes) != count:
            raise InputError(
                f"{self.name}: weights of {count} classes, and {len(classes)} names ({', '.join(classes[:4])}); "
                "leave the names out, and adapt(classes=...) the generator to yours"
            )
        return list(classes)


def read_checkpoint(
    file: str | Path, *, configuration: ADMConfiguration | Mapping[str, Any] | str | Path | None = None
) -> Checkpoint:
    """Read a checkpoint of guided-diffusion, and convert it.

    Args:
        file: a bare state dict, or the only one in nested dicts, its names with or without a prefix (``module.``, ...):
            ``.pt`` or ``.pth`` (read with ``weights_only=True``), or ``.safetensors``; or its place on the hub,
            ``owner/name/file.pt``.
        configuration: the flags it was trained with, or a JSON file of them; None: one of the published networks,
            upsamplers or classifiers, recognized from the weights' shapes.

    Raises:
        InputError: a file that holds something else, several networks, or code (nothing in it is run); one that was cut
            short; or weights that do not fit the flags.
    """
    if isinstance(configuration, (str, Path)):
        configuration = ADMConfiguration.from_file(configuration)
    elif configuration is not None and not isinstance(configuration, ADMConfiguration):
        configuration = ADMConfiguration.from_flags(configuration)
    path = _local(file)
    weights = _own_weights(read_weights(path, mmap=True), path)
    classifier = "out.2.positional_embedding" in weights
    configuration = configuration or recognise(weights, path)
    with torch.device("meta"):
        network = NoisyClassifier.of(configuration) if classifier else build_network(configuration)
    converted = rename(weights, configuration, classifier=classifier)
    _check_fit(converted, network, configuration, path, classifier=classifier)
    network.load_state_dict(converted, assign=True)
    kind = "classifier" if classifier else "network" if configuration.small_size is None else "upsampler"
    return Checkpoint(str(file), kind, configuration, network.eval(), file_hash(path))


def recognise(weights: Mapping[str, Tensor], name: str | Path = "the weights") -> ADMConfiguration:
    """The published network, upsampler or classifier that has weights of these shapes.

    The number of classes is that of the weights: fine-tuned ones are recognized too.

    Raises:
        InputError: none has; the message says what was found.
    """
    classifier = "out.2.positional_embedding" in weights
    found = _signature_of(weights)
    for configuration in (OFFICIAL_CLASSIFIERS if classifier else OFFICIAL).values():
        if _signature(configuration, classifier=classifier) == found:
            rows = weights.get("out.2.c_proj.weight" if classifier else "label_emb.weight")
            return configuration if rows is None else replace(configuration, num_classes=len(rows))
    blocks = sum(1 for key in weights if re.fullmatch(r"input_blocks\.\d+\.0\.(in_layers\.0|op)\.weight", key)) + 1
    labels = weights.get("label_emb.weight")
    raise InputError(
        f"{name}: an ADM {'classifier' if classifier else 'network'}, but none of the published sizes: num_channels "
        f"{found[0]}, {found[1]} channels in, {blocks} input blocks, "
        f"{'no classes' if labels is None else f'{len(labels)} classes'}; give the flags it was trained with "
        "(--config FILE.json)"
    )


def _signature(configuration: ADMConfiguration, *, classifier: bool) -> tuple[Any, ...]:
    """What tells the published configurations apart, as :func:`_signature_of` finds it in the weights."""
    blocks: list[tuple[int, bool]] = []
    last = len(configuration.widths) - 1
    for level, (width, attends) in enumerate(zip(configuration.widths, configuration.attention_levels, strict=True)):
        blocks += [(width, attends)] * configuration.num_res_blocks + [(width, False)] * (level < last)
    side = configuration.image_size // configuration.smallest_step
    return (
        configuration.num_channels,
        configuration.input_channels,
        tuple(blocks),
        None if classifier else configuration.output_channels,
        None if classifier else configuration.class_cond,
        side**2 + 1 if classifier else None,
    )


def _signature_of(weights: Mapping[str, Tensor]) -> tuple[Any, ...]:
    blocks = []
    for number in range(1, len(weights)):
        width = weights.get(f"input_blocks.{number}.0.out_layers.3.weight")
        if width is None:
            break
        blocks.append((len(width), f"input_blocks.{number}.1.qkv.weight" in weights))
    classifier = "out.2.positional_embedding" in weights
    return (
        weights["time_embed.0.weight"].shape[-1],
        weights["input_blocks.0.0.weight"].shape[1],
        tuple(blocks),
        None if classifier else len(weights["out.2.weight"]),
        None if classifier else "label_emb.weight" in weights,
        weights["out.2.positional_embedding"].shape[-1] if classifier else None,
    )


def _own_weights(content: Any, file: Path) -> dict[str, Tensor]:
    """The one network's tensors in a file, their prefix removed."""
    if isinstance(content, Mapping) and {"state", "param_groups"} <= content.keys():
        raise InputError(
            f"{file}: the state of an optimiser (opt*.pt); the weights are in model*.pt, averaged in ema_*.pt"
        )
    found: dict[str, dict[str, Tensor]] = {}
    other = []
    for key, value in flatten(content):
        match = _KEY.fullmatch(key)
        if match and isinstance(value, Tensor):
            found.setdefault(match["prefix"], {})[match["key"]] = value
        elif isinstance(value, Tensor):
            other.append(key)
    if len(found) > 1:
        prefixes = ", ".join(repr(prefix) if prefix else "no prefix" for prefix in found)
        raise InputError(
            f"{file}: several networks in one file, or two mixed (names with {prefixes}); save one alone, and rather "
            "the averaged one (EMA) than the one under training"
        )
    weights = next(iter(found.values()), {})
    strange = [key for key, value in weights.items() if not value.is_floating_point()]
    if strange:
        raise InputError(f"{file}: expected floating-point weights, found {strange[0]} of {weights[strange[0]].dtype}")
    needed = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.2.weight", "out.2")
    if other or not all(any(key.startswith(need) for key in weights) for need in needed):
        names = ", ".join([*other, *weights][:4]) or "nothing"
        raise InputError(
            f"{file}: expected a network of OpenAI's guided-diffusion (time_embed.0.weight, input_blocks.0.0.weight, "
            f"...), found {names}"
        )
    return weights


def _check_fit(
    weights: Mapping[str, Tensor], network: nn.Module, configuration: ADMConfiguration, file: Path, *, classifier: bool
) -> None:
    """Hold converted weights to the network that the flags make."""
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    rows = "pool.out.weight" if classifier else "class_embedding.weight"
    if rows in weights and rows in expected and len(weights[rows]) != expected[rows][0]:
        raise InputError(
            f"{file}: weights of {len(weights[rows])} classes, and the flags say {expected[rows][0]}; convert them "
            f"with num_classes {len(weights[rows])}, and adapt(classes=...) what comes out"
        )
    missing = [name for name in expected if name not in weights]
    extra = [name for name in weights if name not in expected]
    differing = [
        f"{name} {tuple(weights[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if missing or extra or differing:
        faults = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in (("missing", missing), ("too many", extra), ("of another shape", differing))
            if names
        ]
        raise InputError(
            f"{file}: not the weights of a network of {configuration.image_size} pixels, num_channels "
            f"{configuration.num_channels}, channel_mult {configuration.channel_mult}, {configuration.num_res_blocks} "
            f"residual blocks: {'; '.join(faults)}"
        )


def _local(file: str | Path) -> Path:
    """The file itself, or its copy from the hub."""
    path = Path(file)
    place = _ON_THE_HUB.fullmatch(str(file)) if isinstance(file, str) else None
    if path.exists() or path.parent.exists() or not place:
        return path
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(place["repository"], place["file"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingPathError(
            f"{file}: no such file, and not to be had from the hub ({type(error).__name__})"
        ) from error


def module_names(configuration: ADMConfiguration, *, classifier: bool = False) -> dict[str, str]:
    """The original's modules to ours, for a network or the noisy classifier of these flags.

    The three projections of an attention, which the original keeps in one, are here "qkv" too. Skip connections are
    named for every residual block; only those that change the width have one.

    Example:
        >>> from genmix_transforms.generators.adm.configuration import OFFICIAL
        >>> names = module_names(OFFICIAL["256"])
        >>> names["input_blocks.3.0.in_layers.2"], names["output_blocks.17.0.out_layers.3"]
        ('down_blocks.0.downsamplers.0.conv1', 'up_blocks.5.resnets.2.conv2')
    """
    names = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "input_blocks.0.0": "conv_in",
        **dict(_down(configuration)),
        **dict(_residual("middle_block.0", "mid_block.resnets.0")),
        **dict(_attention("middle_block.1", "mid_block.attentions.0")),
        **dict(_residual("middle_block.2", "mid_block.resnets.1")),
    }
    if classifier:
        # The pooling's own parameter, the position embedding, has no module below it.
        return {
            **names,
            "out.0": "norm_out",
            "out.2": "pool",
            "out.2.qkv_proj": "pool.qkv",
            "out.2.c_proj": "pool.out",
        }
    return {
        **names,
        "label_emb": "class_embedding",
        **dict(_up(configuration)),
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }


def _down(configuration: ADMConfiguration) -> Iterator[tuple[str, str]]:
    number = 1
    for level, attends in enumerate(configuration.attention_levels):
        ours = f"down_blocks.{level}"
        for block in range(configuration.num_res_blocks):
            yield from _residual(f"input_blocks.{number}.0", f"{ours}.resnets.{block}")
            if attends:
                yield from _attention(f"input_blocks.{number}.1", f"{ours}.attentions.{block}")
            number += 1
        if level < len(configuration.widths) - 1:
            if configuration.resblock_updown:
                yield from _residual(f"input_blocks.{number}.0", f"{ours}.downsamplers.0")
            else:
                yield f"input_blocks.{number}.0.op", f"{ours}.downsamplers.0.conv"
            number += 1


def _up(configuration: ADMConfiguration) -> Iterator[tuple[str, str]]:
    levels = configuration.attention_levels
    number = 0
    for up, attends in enumerate(reversed(levels)):
        ours = f"up_blocks.{up}"
        for block in range(configuration.num_res_blocks + 1):
            theirs = f"output_blocks.{number}"
            yield from _residual(f"{theirs}.0", f"{ours}.resnets.{block}")
            if attends:
                yield from _attention(f"{theirs}.1", f"{ours}.attentions.{block}")
            if up < len(levels) - 1 and block == configuration.num_res_blocks:
                last = f"{theirs}.{2 if attends else 1}"
                if configuration.resblock_updown:
                    yield from _residual(last, f"{ours}.upsamplers.0")
                else:
                    yield f"{last}.conv", f"{ours}.upsamplers.0.conv"
            number += 1


def _residual(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    return ((f"{theirs}.{there}", f"{ours}.{here}") for there, here in _RESIDUAL.items())


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    return ((f"{theirs}.{there}", f"{ours}.{here}") for there, here in _ATTENTION.items())


def rename(
    weights: Mapping[str, Tensor], configuration: ADMConfiguration, *, classifier: bool = False
) -> dict[str, Tensor]:
    """The original's weights under our names, float32 and in memory of their own; those that have none keep theirs."""
    names = module_names(configuration, classifier=classifier)
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        module, _, leaf = key.rpartition(".")
        ours = f"{names.get(module, module)}.{leaf}"
        value = value.to(torch.float32, copy=True)
        if module.endswith((".qkv", ".proj_out", ".qkv_proj", ".c_proj")) and value.ndim == 3:
            value = value.squeeze(2)  # a convolution over positions, with a kernel of one: a linear layer
        if module.endswith(".qkv") and module in names:
            heads = configuration.heads(len(value) // 3)
            parts = split_projections(value, heads=heads, new_order=configuration.use_new_attention_order)
            for letter, part in zip("qkv", parts, strict=True):
                renamed[ours.replace(".qkv.", f".to_{letter}.")] = part
        else:
            renamed[ours] = value
    return renamed


def split_projections(value: Tensor, *, heads: int, new_order: bool) -> tuple[Tensor, ...]:
    """Queries, keys and values out of the original's one projection, ``(3 C, ...)`` to three of ``(C, ...)``.

    The new order keeps all queries, then all keys, then all values; the legacy order keeps the three head by head.

    Example:
        >>> split_projections(torch.arange(12), heads=2, new_order=False)
        (tensor([0, 1, 6, 7]), tensor([2, 3, 8, 9]), tensor([ 4,  5, 10, 11]))
    """
    if not new_order:
        value = value.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)
    return tuple(part.contiguous() for part in value.chunk(3))
