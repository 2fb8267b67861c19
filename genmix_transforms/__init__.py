"""GenMix: mix synthetic patches from a bank into every real batch.

Lee, Lee, Hong, "GenMix: Combining Generative and Mixture Data Augmentation for Medical Image Classification"
(arXiv 2405.20650).
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from genmix_transforms import moved
from genmix_transforms.lazy import load_lazily

if TYPE_CHECKING:
    from genmix_transforms.bank import SyntheticBank
    from genmix_transforms.transforms import GenMix

try:
    __version__ = version("genmix-transforms")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = ["GenMix", "SyntheticBank", "__version__"]

moved.install()

__getattr__, __dir__ = load_lazily(
    __name__,
    {"GenMix": "genmix_transforms.transforms", "SyntheticBank": "genmix_transforms.bank"},
    modules=("bank", "data", "evaluation", "generators", "transforms"),
)
