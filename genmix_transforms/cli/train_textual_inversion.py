"""``genmix train textual-inversion``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from genmix_transforms.cli.options import (
    AllData,
    BatchSize,
    Channels,
    CheckpointEvery,
    Data,
    Device,
    Fit,
    FitOption,
    GroupKey,
    MixedPrecision,
    Official,
    Out,
    Precision,
    Restart,
    Seed,
    Size,
    SplitSeed,
    Steps,
    comma_separated,
    open_training_set,
    propose_fill,
)
from genmix_transforms.errors import InputError
from genmix_transforms.files.checks import check_output_folder, check_seed

PAPER_MODEL = "CompVis/ldm-text2im-large-256"


class Tune(StrEnum):
    """What is trained."""

    EMBEDDINGS = "embeddings"
    LORA = "lora"


def textual_inversion(
    context: typer.Context,
    data: Data,
    out: Out,
    size: Size = None,
    fit: FitOption = Fit.RESIZE,
    channels: Channels = None,
    group_key: GroupKey = None,
    split_seed: SplitSeed = 0,
    official: Official = True,
    all_data: AllData = False,
    base: Annotated[
        str | None,
        typer.Option(
            help="The latent diffusion model: a folder as diffusers' pipelines save it, or an id on the hub. Left out, "
            f"the paper's, {PAPER_MODEL}."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of --base on the hub.")] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Go on from these embeddings (a folder of genmix train or convert), of the classes, size and channels "
            "of the data. Left out, they begin as their initial words."
        ),
    ] = None,
    vectors: Annotated[int | None, typer.Option(help="Learned for each class. Left out, 8.")] = None,
    initial_words: Annotated[
        str | None,
        typer.Option(
            help="What classes begin as: 'cyst=dark round cyst,metastasis=spot'. Left out, the classes' names."
        ),
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="A prompt to learn with, with one {} in it; may be given several times. Left out, ten of them."
        ),
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="A word for the prompts that are used without --template: ultrasound, CT, X-ray.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="The prompt that images are drawn with; left out, the first template.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="How images are drawn: paper (50 steps of DDIM, scale 10) or fast (20 of DPM-Solver++). Left out, "
            "paper, or as --init has it."
        ),
    ] = None,
    preset: Annotated[
        str, typer.Option(help="gal (6,100 steps of 8 images) or paper (70,000 of 8; the budget of the paper's GANs).")
    ] = "gal",
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Of AdamW for the vectors; left out, 0.02 for the paper's base model, 0.002 for Stable Diffusion."
        ),
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW for the vectors.")] = 0.0,
    mirror: Annotated[
        bool,
        typer.Option("--mirror", help="Show images mirrored left to right, half of the time. Not where sides matter."),
    ] = False,
    cache_latents: Annotated[
        bool,
        typer.Option(
            "--cache-latents/--no-cache-latents",
            help="Encode every image once, at the start, and not at every step.",
        ),
    ] = True,
    one_template_a_step: Annotated[
        bool,
        typer.Option(
            "--one-template-a-step/--a-template-an-image",
            help="Draw one prompt for each class in a step, or one for each image, which takes more time.",
        ),
    ] = True,
    tune: Annotated[
        Tune, typer.Option(help="embeddings (the paper's way), or lora: small changes to the U-Net besides.")
    ] = Tune.EMBEDDINGS,
    lora_rank: Annotated[int, typer.Option(help="Of the adapters of --tune lora.")] = 4,
    lora_learning_rate: Annotated[float, typer.Option(help="Of AdamW for the adapters.")] = 1e-4,
    lora_after: Annotated[int, typer.Option(help="Steps of the embeddings alone before the adapters learn too.")] = 0,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing", help="Compute activations twice instead of keeping them: less memory."
        ),
    ] = False,
    accumulate: Annotated[
        int, typer.Option(help="Parts that each process shares its batch into, one after the other: less memory.")
    ] = 1,
    checkpoint_every: CheckpointEvery = 8_000,
    mixed_precision: MixedPrecision = Precision.NO,
    seed: Seed = 0,
    restart: Restart = False,
    device: Device = None,
) -> None:
    """Learn words for the classes in a latent diffusion model that stays as it came: Textual Inversion.

    Leaves the generator (genmix fill takes it), a folder for each class that diffusers' load_textual_inversion opens,
    evolution.png (the images of fixed seeds, before the training and at the checkpoints), a sheet for every checkpoint
    in samples/, and the losses in training/.

    Several processes: torchrun --nproc_per_node 2 -m genmix_transforms train textual-inversion ...
    """
    from genmix_transforms.generators import TextualInversion
    from genmix_transforms.generators.processes import own_device
    from genmix_transforms.generators.textual_inversion.base_model import find_base_model
    from genmix_transforms.generators.textual_inversion.prompts import choose_templates
    from genmix_transforms.generators.textual_inversion.settings import SamplerSettings, TrainingSettings

    check_output_folder(out)
    own_device(device)
    check_seed(seed)
    settings = {
        "preset": preset,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "mirror": mirror,
        "cache_latents": cache_latents,
        "one_template_a_step": one_template_a_step,
        "tune": tune.value,
        "lora_rank": lora_rank,
        "lora_learning_rate": lora_learning_rate,
        "lora_after": lora_after,
        "gradient_checkpointing": gradient_checkpointing,
        "accumulate": accumulate,
        "checkpoint_every": checkpoint_every,
        "mixed_precision": mixed_precision.value,
    }
    TrainingSettings.of(settings)
    SamplerSettings.of(sampler)
    choose_templates(template, modality=modality)
    words = _parse_words(initial_words) if initial_words else None
    if init is not None:
        given = {
            "--vectors": vectors, "--initial-words": words, "--template": template, "--modality": modality,
            "--prompt": prompt, "--revision": revision,
        }  # fmt: skip
        if named := [name for name, value in given.items() if value]:
            raise InputError(f"--init brings its own; leave {', '.join(named)} out")
    else:
        found = find_base_model(base or PAPER_MODEL, revision=revision)  # before the data is read
    train = open_training_set(
        data,
        size=size,
        fit=fit,
        channels=channels,
        group_key=group_key,
        split_seed=split_seed,
        official=official,
        all_data=all_data,
        painter="latent diffusion model",
    )
    _, channel_count, side, _ = train.images.shape
    if init is not None:
        generator = TextualInversion.from_pretrained(init, base=base)
        if sampler is not None:
            generator = generator.with_sampler(sampler)
    else:
        generator = TextualInversion(
            classes=train.classes,
            base=found,
            resolution=side,
            channels=channel_count,
            vectors=8 if vectors is None else vectors,
            initial_words=words,
            templates=template,
            modality=modality,
            prompt=prompt,
            sampler=sampler,
            bits=8 * train.images.dtype.itemsize,
        )
    generator.fit(
        train,
        out=out,
        warm_start=init is not None,
        seed=seed,
        restart=restart,
        device=device,
        progress=bool(context.obj),
        **settings,
    )
    propose_fill(out)


def _parse_words(text: str) -> dict[str, str]:
    """``cyst=dark spot, metastasis=spot`` as a dict."""
    words = {}
    for part in comma_separated(text):
        name, sign, value = part.partition("=")
        if not (name.strip() and sign and value.strip()):
            raise InputError(f"--initial-words: expected class=words, separated by commas, got {part!r}")
        words[name.strip()] = value.strip()
    return words
