"""A Textual Inversion from its folder, and the base model that it was learned for."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genmix_transforms.errors import InputError
from genmix_transforms.generators.folder import CONFIG
from genmix_transforms.generators.textual_inversion.folder import load_learned
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion
from genmix_transforms.generators.textual_inversion.lora import load_adapter_state
from genmix_transforms.generators.textual_inversion.recorded_base import open_recorded

if TYPE_CHECKING:
    from genmix_transforms.generators.textual_inversion.generator import TextualInversion


def load_folder(
    generator_class: "type[TextualInversion]",
    folder: Path,
    config: dict[str, Any],
    *,
    base: str | Path | LatentDiffusion | None = None,
) -> "TextualInversion":
    """What :meth:`TextualInversion.from_pretrained` returns, on the CPU.

    Args:
        generator_class: :class:`TextualInversion`.
        folder: of the generator.
        config: as its ``config.json`` has it.
        base: the base model, or where it is; None: where it was.

    Raises:
        MissingPathError: no weights, or no base model where it was.
        InputError: files that do not fit each other, or another base model.
    """
    config = dict(config)
    tokens, record = config.pop("tokens", None), config.pop("base", {})
    config.pop("start_images", None)  # they do not travel with it
    embeddings, adapters, provenance = load_learned(folder)
    model, source = open_recorded(folder, record, given=base)
    generator = generator_class(**config, base=model)
    if tokens != generator.config["tokens"]:
        raise InputError(f"{folder / CONFIG}: the tokens are {tokens}, and the classes {list(generator.classes)}")
    if adapters:
        # A base model that was lent keeps its U-Net as it is.
        unet = copy.deepcopy(model.unet) if isinstance(base, LatentDiffusion) else model.unet
        generator.model = model.with_unet(unet)
        load_adapter_state(unet, adapters, name=str(folder))
    generator.base = source  # by the recorded name, whatever the folder is called here
    generator = generator.with_embeddings(embeddings)
    generator.provenance = provenance
    return generator
