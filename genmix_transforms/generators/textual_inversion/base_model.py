"""Open a base model: a pipeline as diffusers saves it, from a folder or the hub, whose parts fit each other."""

import importlib.util
import json
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.generators.textual_inversion.network import BaseSource, LatentDiffusion
from genmix_transforms.generators.textual_inversion.settings import PAPER_MODEL

FAMILIES = {"LDMTextToImagePipeline": "ldm", "StableDiffusionPipeline": "stable-diffusion"}
"""The pipelines that embeddings can be learned for, as ``model_index.json`` names them."""

PREDICTIONS = ("epsilon", "v_prediction")
"""What the U-Net of a base model may predict."""

_INDEX = "model_index.json"

_LIBRARIES = (None, "diffusers", "transformers", "latent_diffusion", "stable_diffusion")
"""Whose classes a pipeline may name: not a module that lies beside its weights."""

_UNREADABLE = (
    OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError, pickle.PickleError,
    SafetensorError,
)  # fmt: skip


def find_base_model(source: str | Path, *, revision: str | None = None) -> BaseSource:
    """A base model on this machine, downloaded if need be.

    Args:
        source: a folder with a ``model_index.json``, or a hub id (``owner/name``).
        revision: branch, tag or commit on the hub.

    Raises:
        MissingPathError: no such folder, and not to be had from the hub; the message says how to bring it here.
        InputError: a pipeline of another kind.
    """
    if not isinstance(source, (str, Path)) or not str(source).strip():
        raise InputError(f"base model: expected a folder or a hub id (owner/name), got {source!r}")
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise InputError(f"{source}: a folder has no revisions (got {revision!r}); leave the revision out")
        found = BaseSource(name=folder.resolve().name, revision=None, folder=folder)
    elif folder.parent != Path() and folder.parent.is_dir():  # "models/lmd" is a slip, not somebody's repository
        raise MissingPathError(f"base model {source}: no such folder (in {folder.parent} there is no {folder.name})")
    elif isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        found = _download(source, revision=revision)
    else:
        raise MissingPathError(f"base model {source}: no such folder, and not a hub id (owner/name)")
    family_of(found.folder)
    return found


def family_of(folder: Path) -> str:
    """ "ldm" or "stable-diffusion", from the folder's ``model_index.json``.

    Raises:
        MissingPathError: there is none.
        InputError: a pipeline of another kind.
    """
    file = folder / _INDEX
    if not file.exists():
        raise MissingPathError(
            f"{folder}: no {_INDEX}: not a pipeline as diffusers saves it (pipeline.save_pretrained, or a copy of a "
            "repository on the hub)"
        )
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        name = str(index["_class_name"])
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise InputError(f"{file}: does not say what pipeline it is of ({error})") from error
    if name not in FAMILIES:
        raise InputError(
            f"{folder}: a {name}, and embeddings can be learned for {' and '.join(FAMILIES)} "
            f"(such as {PAPER_MODEL}, or Stable Diffusion 1 and 2)"
        )
    for part, entry in index.items():
        if isinstance(entry, list) and entry and entry[0] not in _LIBRARIES:
            raise InputError(
                f"{folder}: its {part} is of {entry[0]!r}, code that it brings along, which is not run; expected parts "
                "of diffusers and transformers"
            )
    return FAMILIES[name]


def open_base_model(
    source: BaseSource, *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> LatentDiffusion:
    """The base model, frozen. Weights are safetensors where there are any; pickled ones are read as weights only.

    Args:
        source: what :func:`find_base_model` found.
        device: where to put it.
        dtype: of the weights. In another than float32 it can be drawn from, not learned for, and it has another hash:
            generators of a float32 one do not take it for theirs.

    Raises:
        InputError: parts that are missing, cannot be read or do not fit each other, or another kind of diffusion.
        ImportError: transformers is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ImportError(
            "TextualInversion: the text encoders need transformers: install it with "
            "pip install 'genmix-transforms[textual-inversion]'"
        )
    from diffusers import LDMTextToImagePipeline, StableDiffusionPipeline

    family = family_of(source.folder)
    # A checker that blackens images of skin and a feature extractor for it: neither has a part in this.
    left_out: dict[str, Any] = (
        {}
        if family == "ldm"
        else {
            "safety_checker": None,
            "feature_extractor": None,
            "image_encoder": None,
            "requires_safety_checker": False,
        }
    )
    pipeline_class: Any = LDMTextToImagePipeline if family == "ldm" else StableDiffusionPipeline
    encoder = "bert" if family == "ldm" else "text_encoder"
    try:
        # The precision is set afterwards: the argument that sets it here goes by another name in every other release.
        with _quiet_loaders():
            text_encoder = _open_text_encoder(source.folder / encoder, family=family)
            left_out[encoder] = None
            pipeline = pipeline_class.from_pretrained(source.folder, local_files_only=True, **left_out)
            model = LatentDiffusion(
                tokenizer=pipeline.tokenizer,
                text_encoder=text_encoder,
                unet=pipeline.unet,
                autoencoder=pipeline.vqvae if family == "ldm" else pipeline.vae,
                scheduler_config=pipeline.scheduler.config,
                family=family,
            ).to(device, dtype)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(
            f"{source.folder}: the base model cannot be read ({type(error).__name__}: {_first_line(error)}); weights "
            "are read as safetensors, or from pickles that hold tensors alone: nothing else in a file is run"
        ) from error
    check_parts(model, name=str(source.folder))
    model.source = source
    return model


def check_noise_schedule(config: Any, *, name: str) -> None:
    """Raise an :class:`InputError` for a scheduler whose model neither learns nor draws as is known here.

    Args:
        config: of the scheduler that the base model came with.
        name: of the base model, for the message.
    """
    prediction = config.get("prediction_type", "epsilon")
    if "beta_schedule" not in config or prediction not in PREDICTIONS:
        raise InputError(
            f"{name}: a base model that predicts {' or '.join(PREDICTIONS)} from a schedule of betas is expected; "
            f"this one came with a {config.get('_class_name', 'scheduler')} of prediction_type {prediction!r}"
        )


def check_parts(model: LatentDiffusion, *, name: str) -> None:
    """Raise an :class:`InputError` for parts that do not belong together, or not to a latent diffusion model.

    Args:
        model: opened.
        name: for the message.
    """
    check_noise_schedule(model.scheduler_config, name=name)
    unet, table = model.unet.config, model.learned.table
    side = unet.sample_size
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise InputError(
            f"{name}: its U-Net says that it was trained on latents of {side!r}; one number is expected, as for square "
            "images (sample_size in unet/config.json)"
        )
    latents = int(model.autoencoder.config.latent_channels)
    if not int(unet.in_channels) == int(unet.out_channels) == latents:
        raise InputError(
            f"{name}: its U-Net takes {unet.in_channels} channels and gives {unet.out_channels}, and its autoencoder's "
            f"latents have {latents}: a model that is told more than a prompt, which is not known here"
        )
    rows = int(getattr(table, "num_embeddings", 0))
    if len(model.tokenizer) > rows:
        raise InputError(
            f"{name}: its tokenizer has {len(model.tokenizer)} tokens, and its text encoder vectors for {rows}: they "
            "are not of one model"
        )
    told, width = unet.cross_attention_dim, int(model.text_encoder.config.hidden_size)
    if (set(told) if isinstance(told, (list, tuple)) else {told}) != {width}:
        raise InputError(
            f"{name}: its text encoder's states have {width} numbers, and its U-Net asks for {told}: they are not of "
            "one model"
        )


def _open_text_encoder(folder: Path, *, family: str) -> Any:
    """The text encoder; transformers itself fills what a file lacks with random numbers, and goes on."""
    import transformers
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel

    encoder_class: Any = LDMBertModel
    if family != "ldm":
        index = json.loads((folder.parent / _INDEX).read_text(encoding="utf-8"))
        encoder_class = getattr(transformers, index[folder.name][1])
    encoder, told = encoder_class.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    # LDMBert's head tells words apart, which nobody asks of it here.
    missing = sorted(name for name in told["missing_keys"] if not name.startswith("to_logits"))
    if missing:
        raise InputError(
            f"{folder}: the text encoder's weights are not all there: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''} of {len(missing)} are missing; copy the base model again"
        )
    return encoder


def _download(name: str, *, revision: str | None) -> BaseSource:
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        # Knows which of a repository's files a pipeline needs, and takes safetensors where there are both.
        folder = Path(DiffusionPipeline.download(name, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise MissingPathError(
            f"base model {name}: neither in the hub's cache on this machine nor to be had from the hub "
            f"({type(error).__name__}). Where there is a network: hf download {name} --local-dir FOLDER; "
            "bring FOLDER here, and give it as the base model (--base FOLDER)"
        ) from error
    # A snapshot's folder is named after its commit: what a branch's name stood for on that day.
    return BaseSource(name=name, revision=folder.name, folder=folder)


@contextmanager
def _quiet_loaders() -> Iterator[None]:
    """Without the bars of the libraries that load the parts, which are over before they can be read, and without their
    remark that LDM's text encoder is none of transformers' own."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    shown = [library for library in (of_diffusers, of_transformers) if library.is_progress_bar_enabled()]
    level = of_diffusers.get_verbosity()
    of_diffusers.set_verbosity_error()
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        of_diffusers.set_verbosity(level)
        for library in shown:
            library.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0]
