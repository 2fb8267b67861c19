"""Generators by their kind. A new one is a package of its own here, or an entry point elsewhere."""

import inspect
import pkgutil
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch

from genmix_transforms.errors import InputError
from genmix_transforms.generators.base import Generator
from genmix_transforms.generators.folder import read_config, resolve_source
from genmix_transforms.generators.kinds import ENTRY_POINTS, trainable_kinds


def generator_class(kind: str) -> type[Generator]:
    """The class of a kind of generator.

    Raises:
        InputError: no such kind; the message lists those there are.
    """
    import genmix_transforms.generators as rooms

    module = kind.replace("-", "_")
    # Only names that stand here as modules are imported: a config file cannot name another.
    if module in {info.name for info in pkgutil.iter_modules(rooms.__path__)}:
        for value in vars(import_module(f"{rooms.__name__}.{module}")).values():
            if isinstance(value, type) and issubclass(value, Generator) and value.__dict__.get("kind") == kind:
                return value
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == kind:
            loaded: type[Generator] = entry.load()
            return loaded
    known = sorted([*trainable_kinds(), "per-class"])
    raise InputError(f"no generator of kind {kind!r}; there are {', '.join(known)}")


def load_generator(
    source: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    base: str | Path | None = None,
) -> Generator:
    """Load a generator of any kind.

    Args:
        source: a folder that ``fit`` or ``save_pretrained`` wrote, or the id of a model repository on the hub.
        revision: branch, tag or commit on the hub.
        device: where to put the network.
        base: the base model of a Textual Inversion, if it is not where the training found it: a folder or a hub id.

    Raises:
        InputError: nothing there, or nothing of ours; or a base model for a generator that stands by itself.

    Example:
        >>> from genmix_transforms.generators import load_generator
        >>> generator = load_generator("runs/busi")  # doctest: +SKIP
        >>> pixels = generator.sample(labels=[0, 1, 2], seeds=[7, 8, 9])  # doctest: +SKIP
    """
    folder = resolve_source(source, revision=revision)
    kind = read_config(folder)["kind"]
    found: Any = generator_class(kind)
    if base is None:
        loaded: Generator = found.from_pretrained(folder, device=device)
        return loaded
    if "base" not in inspect.signature(found.from_pretrained).parameters:
        raise InputError(f"{source}: a {kind} generator has no base model; leave base ({base}) out")
    on_base: Generator = found.from_pretrained(folder, device=device, base=base)
    return on_base
