"""StyleGAN: Karras, Laine, Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks" (2019)."""

from genmix_transforms.generators.stylegan.generator import StyleGAN
from genmix_transforms.generators.stylegan.walking import interpolate, mix_styles

__all__ = ["StyleGAN", "interpolate", "mix_styles"]
