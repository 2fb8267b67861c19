"""Generators of synthetic patches, one training loop for all of them, and the filling of banks.

Names load on first use: a training script that only wants one generator does not import the libraries of the others.
"""

from typing import TYPE_CHECKING

from genmix_transforms.lazy import load_lazily

if TYPE_CHECKING:
    from genmix_transforms.generators.adm import ADM
    from genmix_transforms.generators.base import Generator
    from genmix_transforms.generators.dcgan import DCGAN
    from genmix_transforms.generators.filling import fill_bank
    from genmix_transforms.generators.per_class import PerClass
    from genmix_transforms.generators.pretraining import check_pool
    from genmix_transforms.generators.registry import load_generator
    from genmix_transforms.generators.stylegan import StyleGAN
    from genmix_transforms.generators.textual_inversion import TextualInversion

__all__ = [
    "ADM",
    "DCGAN",
    "Generator",
    "PerClass",
    "StyleGAN",
    "TextualInversion",
    "check_pool",
    "fill_bank",
    "load_generator",
]

__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "ADM": "genmix_transforms.generators.adm",
        "DCGAN": "genmix_transforms.generators.dcgan",
        "Generator": "genmix_transforms.generators.base",
        "PerClass": "genmix_transforms.generators.per_class",
        "StyleGAN": "genmix_transforms.generators.stylegan",
        "TextualInversion": "genmix_transforms.generators.textual_inversion",
        "check_pool": "genmix_transforms.generators.pretraining",
        "fill_bank": "genmix_transforms.generators.filling",
        "load_generator": "genmix_transforms.generators.registry",
    },
)
