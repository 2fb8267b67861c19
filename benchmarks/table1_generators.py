"""How long each generator of benchmarks/table1.py is trained: one table a preset, the only place to change it.

``small`` is for one core without a GPU: a DCGAN takes about 10 minutes of processor time for 64 px patches, a StyleGAN
15, an ADM 20, each once a fold. ``paper`` is section 3.1 of Lee et al. (arXiv 2405.20650) where that says something, on
a GPU. Their ADM and their Textual Inversion start from pre-trained networks: rows of those names need ``--weights``. An
ADM from scratch is another row, ``adm-scratch``, and a Textual Inversion on any other network is ``ti-standin``.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace

from genmix_transforms.evaluation.bank_making import Recipe

SMALL_ADM = {
    "num_channels": 32, "channel_mult": [1, 2, 3], "num_res_blocks": 1, "attention_resolutions": [8],
    "num_head_channels": 32, "resblock_updown": True, "learn_sigma": True, "class_cond": True,
    "noise_schedule": "cosine", "dropout": 0.1,
}  # fmt: skip

NEEDS_WEIGHTS = {
    "adm": "the paper's ADM is pre-trained on ImageNet: give its weights, --weights adm=FOLDER (genmix convert adm); "
    "the row adm-scratch is one from scratch",
    "textual-inversion": "the paper's Textual Inversion stands on a latent diffusion model pre-trained on LAION-400M: "
    "give it, --weights textual-inversion=FOLDER; a smaller model is a row of its own, ti-standin",
    "ti-standin": "it needs a latent diffusion model: --weights ti-standin=FOLDER",
}
"""Rows that stay empty, with this reason, where nobody gives the weights."""


def _power_of_two(side: int) -> int:
    """The DCGAN's sizes: the smallest that does not lose pixels, at most 256."""
    return next((size for size in (16, 32, 64, 128, 256) if size >= side), 256)


def _small(side: int) -> dict[str, Recipe]:
    tiny = min(side, 32) // 4 * 4
    return {
        "dcgan": Recipe(
            kind="dcgan",
            size=min(_power_of_two(side), 64),
            network={"base_width": 32},
            training={"steps": 6_000, "batch_size": 16, "mixed_precision": "bf16"},
        ),
        "stylegan": Recipe(
            kind="stylegan",
            size=min(side, 64),
            # psi as in the recorded tables, when it was the default.
            network={"fmap_base": 1024, "fmap_max": 64, "latent_size": 128, "psi": 0.7},
            training={
                "steps": 2_400, "batch_size": 16, "r1_interval": 16, "growing_share": 0.4, "ema_half_life": 2_000,
                "checkpoint_every": 4_000, "mixed_precision": "bf16",
            },
        ),
        "adm-scratch": Recipe(
            kind="adm",
            size=tiny,
            # Deterministic sampling (eta 0) leaves patches of noise in the bank of a network that has seen so little.
            network={"configuration": {"image_size": tiny, **SMALL_ADM}, "sampler": {"eta": 1.0}},
            training={
                "steps": 1_800, "batch_size": 16, "learning_rate": 4e-4, "mirror": True, "checkpoint_every": 8_000,
            },
        ),
        "adm": Recipe(kind="adm", size=tiny, training={"steps": 1_800, "batch_size": 16, "mirror": True}),
        "textual-inversion": Recipe(kind="textual-inversion", training={"steps": 2_000}),
        "ti-standin": Recipe(kind="textual-inversion", training={"steps": 2_000}),
    }  # fmt: skip


def _paper(side: int) -> dict[str, Recipe]:
    bf16 = {"mixed_precision": "bf16"}
    return {
        "dcgan": Recipe(
            kind="dcgan",
            size=_power_of_two(side),
            per_class=True,
            training={"preset": "paper", "steps": 70_000, **bf16},
        ),
        "stylegan": Recipe(kind="stylegan", per_class=True, training={"preset": "paper", "steps": 70_000, **bf16}),
        "adm-scratch": Recipe(kind="adm", training={"preset": "adm", "steps": 50_000, **bf16}),
        "adm": Recipe(kind="adm", training={"preset": "fine-tune", "steps": 20_000, **bf16}),
        "textual-inversion": Recipe(kind="textual-inversion", training={"steps": 5_000}),
        "ti-standin": Recipe(kind="textual-inversion", training={"steps": 5_000}),
    }


def _trial(side: int) -> dict[str, Recipe]:
    """Seconds, not minutes: to see that everything runs."""
    return {
        "dcgan": Recipe(
            kind="dcgan", size=16, network={"base_width": 4}, training={"steps": 4, "batch_size": 8}
        ),
        "stylegan": Recipe(
            kind="stylegan", size=16, network={"fmap_base": 64, "fmap_max": 8, "latent_size": 8},
            training={"steps": 4, "batch_size": 8},
        ),
        "adm-scratch": Recipe(
            kind="adm", size=16,
            network={"configuration": {"image_size": 16, **SMALL_ADM}, "sampler": {"steps": 2}},
            training={"steps": 2, "batch_size": 8},
        ),
        "adm": Recipe(kind="adm", size=16, training={"steps": 2, "batch_size": 8}),
        "textual-inversion": Recipe(kind="textual-inversion", training={"steps": 2, "batch_size": 8}),
        "ti-standin": Recipe(kind="textual-inversion", training={"steps": 2, "batch_size": 8}),
    }  # fmt: skip


GENERATORS: Mapping[str, Callable[[int], dict[str, Recipe]]] = {
    "small": _small, "scratch": _small, "fast": _paper, "paper": _paper, "trial": _trial,
}  # fmt: skip
"""Recipes by preset: of the side of the patches in pixels, the recipe of each row."""


def add_precision_option(options: argparse.ArgumentParser) -> None:
    """``--mixed-precision``, for machines that the recipes were not sized for."""
    options.add_argument(
        "--mixed-precision",
        choices=["no", "bf16"],
        help="of all generators; left out, the preset's. Many processors are faster without bfloat16",
    )


def in_precision(recipe: Recipe, precision: str) -> Recipe:
    """The same generator, trained with this ``mixed_precision``."""
    return replace(recipe, training={**recipe.training, "mixed_precision": precision})
