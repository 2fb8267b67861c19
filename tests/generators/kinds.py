"""Every kind of generator, tiny: what the contract suite goes through. A new kind is one line here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from genmix_transforms.generators import ADM, DCGAN, PerClass, StyleGAN, TextualInversion
from genmix_transforms.generators.base import Generator

CLASSES = ("cyst", "metastasis")


@dataclass(frozen=True)
class Kind:
    """How to make a tiny generator of a kind, how to train it in a moment, and what it is like."""

    make: Callable[..., Generator]
    cls: type[Generator]
    training: dict[str, Any] = field(default_factory=dict)
    needs: str | None = None
    """A package that tests of it need."""
    pretrains: bool = True
    """Whether a pool without labels teaches one network of it something."""
    volumes: bool = False
    """Whether it draws volumes."""

    def options(self) -> dict[str, Any]:
        """Of the constructor: what makes a network as tiny for any patches."""
        made = self.ready()
        names = {setting.name for setting in self.cls.network_settings.options()} | {"sampler"}
        return {name: value for name, value in made.config.items() if name in names}

    def ready(self) -> Generator:
        """One generator for all who only look at it, or have it refuse something: made once."""
        if self.cls not in _READY:
            _READY[self.cls] = self.make()
        return _READY[self.cls]


_READY: dict[type[Generator], Generator] = {}


@cache
def base_model() -> Path:
    """A tiny latent diffusion model, made once a session."""
    from tests.generators.textual_inversion.tiny_pipelines import save_ldm

    return save_ldm(Path(mkdtemp(prefix="genmix-tests-")) / "tiny-ldm")


def make_dcgan(**options: Any) -> DCGAN:
    return DCGAN(**{"classes": CLASSES, "resolution": 16, "base_width": 4, "latent_size": 8, **options})


def make_per_class(*, classes: tuple[str, ...] = CLASSES, **options: Any) -> PerClass:
    return PerClass.of(DCGAN, classes=classes, **{"resolution": 16, "base_width": 4, "latent_size": 8, **options})


def make_stylegan(**options: Any) -> StyleGAN:
    tiny = {"fmap_base": 64, "fmap_max": 8, "latent_size": 8, "mapping_layers": 2}
    return StyleGAN(**{"classes": CLASSES, "resolution": 16, **tiny, **options})


def make_adm(**options: Any) -> ADM:
    flags = {
        "image_size": 16, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 1], "attention_resolutions": [8],
        "num_head_channels": 32, "learn_sigma": True, "class_cond": True, "num_classes": 2, "diffusion_steps": 50,
    }  # fmt: skip
    sampler = {"steps": 2, "batch_size": 8}
    return ADM(**{"classes": CLASSES, "channels": 1, "configuration": flags, "sampler": sampler, **options})


def make_textual_inversion(**options: Any) -> TextualInversion:
    tiny = {"resolution": 16, "vectors": 2, "sampler": {"steps": 2, "batch_size": 8}}
    return TextualInversion(**{"classes": CLASSES, "base": base_model(), **tiny, **options})


KINDS = {
    "dcgan": Kind(make_dcgan, DCGAN, volumes=True),
    "per-class": Kind(make_per_class, PerClass, pretrains=False, volumes=True),
    "stylegan": Kind(make_stylegan, StyleGAN),
    "adm": Kind(make_adm, ADM),
    "textual-inversion": Kind(make_textual_inversion, TextualInversion, needs="transformers", pretrains=False),
}
