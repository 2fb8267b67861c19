"""StyleGAN: Karras, Laine, Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks" (2019)."""

from genmix_transforms.generators.stylegan.convert.checkpoint import convert_stylegan
from genmix_transforms.generators.stylegan.generator import StyleGAN, adapt_stylegan
from genmix_transforms.generators.stylegan.sampling import interpolate, mix_styles

__all__ = ["StyleGAN", "adapt_stylegan", "convert_stylegan", "interpolate", "mix_styles"]
