"""StyleGAN: Karras, Laine, Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks" (2019)."""

from genmix_transforms.generators.stylegan.generator import StyleGAN

__all__ = ["StyleGAN"]
