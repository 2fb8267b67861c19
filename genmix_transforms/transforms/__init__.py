"""GenMix, and the pure functions it is made of."""

from typing import TYPE_CHECKING

from genmix_transforms.lazy import load_lazily

if TYPE_CHECKING:
    from genmix_transforms.transforms.genmix import GenMix

__all__ = ["GenMix"]

__getattr__, __dir__ = load_lazily(__name__, {"GenMix": "genmix_transforms.transforms.genmix"})
