"""Low-rank adapters (LoRA) on a diffusion network's attention: put in, taken off, added to the weights, saved, loaded.

Hu et al. (arXiv 2106.09685). The adapters are peft's; the files are those of diffusers' training scripts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError, MissingExtraError, MissingPathError
from genmix_transforms.files.atomic import write_tensors
from genmix_transforms.files.checks import check_seed, whole_number

ADAPTERS = "pytorch_lora_weights.safetensors"
"""Diffusers' name for the file."""

_NAME = "genmix"
_PREFIX = "unet."
_FACTORS = {"_A.weight": "A", "_B.weight": "B", ".down.weight": "A", ".up.weight": "B"}
_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


def add_adapters(network: Any, *, rank: int, seed: int = 0, name: str = _NAME) -> list[nn.Parameter]:
    """Put adapters on all attention projections, in place; at first they change nothing.

    Args:
        network: a network of diffusers. Its own weights are frozen, and stay as they are.
        rank: of the changes.
        seed: of the start: one factor is drawn, the other is zero.
        name: of the adapters, a part of their parameters' names.

    Returns:
        What is to be trained, float32: see :func:`adapter_parameters`.

    Raises:
        InputError: a rank below 1, or adapters that are there already.
        MissingExtraError: peft is not installed.

    Source: Hu et al. (arXiv 2106.09685).
    """
    whole_number(rank, name="lora_rank", least=1)
    check_seed(seed)
    peft = _peft()
    _check_bare(network)
    network.requires_grad_(False)
    # alpha = rank: the product of the factors is the change, with no scale that a file would have to tell.
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_PROJECTIONS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if hasattr(network, "add_adapter"):  # diffusers' own way, for networks whose adapters it can save and load
            network.add_adapter(config, adapter_name=name)
        else:
            peft.inject_adapter_in_model(config, network, adapter_name=name)
    return adapter_parameters(network)


def adapter_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The adapters' factors, in the order of the modules; none where there are no adapters."""
    return [parameter for name, parameter in network.named_parameters() if ".lora_" in name]


def remove_adapters(unet: Any) -> None:
    """Take the adapters off, in place: the network as it was before them. Without any, nothing happens."""
    if adapter_parameters(unet):
        unet.unload_lora()


def merge_adapters(network: nn.Module) -> None:
    """Add the adapters to the weights, in place: a plain network that says the same. Without any, nothing happens."""
    for name, module in list(network.named_modules()):
        if hasattr(module, "get_base_layer") and hasattr(module, "merge"):
            module.merge()
            network.set_submodule(name, module.get_base_layer())
    for name in ("peft_config", "_hf_peft_config_loaded"):
        if name in vars(network):
            delattr(network, name)


def adapter_state(unet: nn.Module) -> dict[str, Tensor]:
    """The adapters alone, by diffusers' names (``unet.down_blocks...to_q.lora_A.weight``): what is saved and hashed."""
    return {
        _PREFIX + name.replace(f".{_NAME}.", "."): value.detach()
        for name, value in unet.state_dict().items()
        if ".lora_" in name
    }


def save_adapters(folder: str | Path, unet: nn.Module) -> Path:
    """Write the adapters as diffusers' training scripts do: ``pipeline.load_lora_weights(folder)`` opens them, and
    ``unet.load_lora_adapter(folder, prefix="unet")`` where a pipeline has no such method, as LDM's.

    Args:
        folder: made if need be.
        unet: with adapters.

    Returns:
        The file.

    Raises:
        InputError: there are no adapters to save.
    """
    state = adapter_state(unet)
    if not state:
        raise InputError("lora: this U-Net has no adapters to save; add_adapters(unet, rank=...) makes them")
    file = Path(folder) / ADAPTERS
    file.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(file, state)
    return file


def load_adapters(unet: Any, folder: str | Path) -> None:
    """Put adapters from a file on a U-Net that has none, in place: those of :func:`save_adapters`, or of diffusers.

    Raises:
        MissingPathError: there is no such file.
        InputError: not a whole file, or see :func:`load_adapter_state`.
        MissingExtraError: peft is not installed.
    """
    file = Path(folder) / ADAPTERS
    if not file.is_file():
        raise MissingPathError(f"{file}: no such file")
    try:
        state = safetensors.torch.load_file(file)
    except safetensors.SafetensorError as error:
        raise InputError(f"{file}: not a whole safetensors file ({error})") from error
    _check_bare(unet)
    load_adapter_state(unet, state, name=str(file))


def load_adapter_state(unet: Any, state: Mapping[str, Tensor], *, name: str = "lora") -> None:
    """Put adapters on a U-Net, in place, or other values into those it has.

    Args:
        unet: a diffusers ``UNet2DConditionModel``; all of it is frozen after this.
        state: as :func:`adapter_state` gives it, or as diffusers' scripts save it.
        name: what to call them in messages.

    Raises:
        InputError: no adapters, those of another U-Net, of other layers or another rank than it has, or such that are
            no numbers.
        MissingExtraError: peft is not installed.
    """
    peft = _peft()
    if not state or any(not key.startswith(_PREFIX) or ".lora" not in key for key in state):
        keys = ", ".join(list(state)[:3]) or "nothing"
        raise InputError(f"{name}: expected adapters of a U-Net alone (unet....lora_A.weight, ...), found {keys}")
    _check_fit(state, unet, name)
    if present := adapter_state(unet):
        if {key: value.shape for key, value in present.items()} != {key: value.shape for key, value in state.items()}:
            raise InputError(f"{name}: other layers or another rank than the adapters that this U-Net has")
        own = {key.removeprefix(_PREFIX): value for key, value in state.items()}
        peft.set_peft_model_state_dict(unet, own, adapter_name=_NAME)
    else:
        try:
            unet.load_lora_adapter(dict(state), prefix=_PREFIX.rstrip("."), adapter_name=_NAME)
        except (ValueError, RuntimeError, KeyError) as error:
            remove_adapters(unet)
            raise InputError(f"{name}: not adapters of this U-Net ({error})") from error
    unet.requires_grad_(False)


def _check_fit(state: Mapping[str, Tensor], unet: nn.Module, name: str) -> None:
    """Hold each pair of factors to the layer that it changes: peft itself passes over what it finds no place for."""
    shapes = {key.replace(".base_layer.", "."): value.shape for key, value in unet.state_dict().items()}
    factors: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        layer, _, factor = key.removeprefix(_PREFIX).rpartition(".lora")
        if f"{layer}.weight" not in shapes:
            raise InputError(
                f"{name}: the adapters change {layer}, which this U-Net does not have: they are another base model's"
            )
        if not value.isfinite().all():
            raise InputError(f"{name}: {key} holds NaN or infinity: a training that diverged, or a damaged file")
        factors.setdefault(layer, {})[_FACTORS.get(factor, factor)] = value
    for layer, pair in factors.items():
        if pair.keys() != {"A", "B"}:
            raise InputError(f"{name}: of the two factors that change {layer}, found {', '.join(sorted(pair))} alone")
        after, before = shapes[f"{layer}.weight"][:2]
        first, second = tuple(pair["A"].shape), tuple(pair["B"].shape)
        if len(first) < 2 or len(second) < 2 or (first[1], second[0], first[0]) != (before, after, second[1]):
            raise InputError(
                f"{name}: factors of {first} and {second} for {layer}, which has {before} inputs and {after} outputs: "
                "they are another base model's"
            )


def _check_bare(network: nn.Module) -> None:
    if adapter_parameters(network):
        raise InputError("lora: this U-Net has adapters already; remove_adapters(unet) takes them off")


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtraError(
            "low-rank adapters (LoRA) need peft: install it with pip install 'genmix-transforms[lora]', or train and "
            "load without them"
        ) from error
    return peft
