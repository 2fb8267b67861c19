"""GenMix, and the pure functions it is made of."""

from typing import TYPE_CHECKING

from genmix_transforms.lazy import load_lazily

if TYPE_CHECKING:
    from genmix_transforms.transforms import functional
    from genmix_transforms.transforms.genmix import GenMix
    from genmix_transforms.transforms.pairing import pairing_matrix
    from genmix_transforms.transforms.prefetching import Prefetched

__all__ = ["GenMix", "Prefetched", "functional", "pairing_matrix"]

__getattr__, __dir__ = load_lazily(
    __name__,
    {
        "GenMix": "genmix_transforms.transforms.genmix",
        "Prefetched": "genmix_transforms.transforms.prefetching",
        "pairing_matrix": "genmix_transforms.transforms.pairing",
    },
    modules=("functional",),
)
