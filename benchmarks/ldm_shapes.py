"""The shapes of the paper's base model, as published and scaled down, with random weights: times do not depend on them.

Scaled down, the pieces keep their shares of a training step's arithmetic: every width is divided by another number, so
that they do.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, LDMTextToImagePipeline, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertTokenizer

from genmix_transforms.generators.textual_inversion.network import BaseSource, LatentDiffusion

TOKENS = 77
LEVELS = (1, 2, 4, 4)
"""Widths of the U-Net's and the autoencoder's levels, as multiples of the first."""

PIECES = ("VAE encoder", "text encoder", "U-Net", "VAE decoder")
WORDS = ("a", "an", "in", "of", "medical", "ultrasound", "image", "showing", "normal", "benign", "malignant", "lesion")


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Of an ``LDMTextToImagePipeline``."""

    name: str
    latent_side: int  # an eighth of the images' side
    unet_width: int  # of the first level
    unet_norm_groups: int
    text_width: int  # of a word vector, and of what the U-Net is told of each token
    text_head_width: int
    vae_width: int  # of the first level
    vae_norm_groups: int
    vocabulary: int
    text_layers: int = 32  # whose feed-forward parts are four times as wide as a word vector
    unet_heads: int = 8
    text_heads: int = 8


PUBLISHED = Shapes(
    name="CompVis/ldm-text2im-large-256", latent_side=32, unet_width=320, unet_norm_groups=32, text_width=1280,
    text_head_width=64, vae_width=128, vae_norm_groups=32, vocabulary=30_522,
)  # fmt: skip
# The vocabulary and the U-Net's heads: as many numbers in the table, and as many attention weights, for each operation
# of a training step as in the published model.
SCALED = Shapes(
    name="scaled down", latent_side=16, unet_width=96, unet_norm_groups=8, text_width=192, text_head_width=40,
    vae_width=39, vae_norm_groups=13, vocabulary=4_730, unet_heads=3, text_heads=2,
)  # fmt: skip
TINY = Shapes(
    name="tiny", latent_side=8, unet_width=8, unet_norm_groups=4, text_width=16, text_head_width=2, vae_width=4,
    vae_norm_groups=2, vocabulary=200, text_layers=2,
)  # fmt: skip


def build(shapes: Shapes) -> dict[str, Any]:
    """Text encoder, U-Net and autoencoder, on the default device."""
    unet_widths, vae_widths = (
        [width * times for times in (1, 2, 4, 4)] for width in (shapes.unet_width, shapes.vae_width)
    )
    return {
        "text_encoder": LDMBertModel(
            LDMBertConfig(
                vocab_size=shapes.vocabulary, max_position_embeddings=TOKENS, encoder_layers=shapes.text_layers,
                encoder_ffn_dim=4 * shapes.text_width, encoder_attention_heads=shapes.text_heads,
                head_dim=shapes.text_head_width, d_model=shapes.text_width,
            )
        ),
        "unet": UNet2DConditionModel(
            sample_size=shapes.latent_side, in_channels=4, out_channels=4, block_out_channels=unet_widths,
            layers_per_block=2, cross_attention_dim=shapes.text_width, norm_num_groups=shapes.unet_norm_groups,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            attention_head_dim=shapes.unet_heads,  # their number, whatever the argument is called
        ),
        "autoencoder": AutoencoderKL(
            block_out_channels=vae_widths, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=2,
            norm_num_groups=shapes.vae_norm_groups, sample_size=8 * shapes.latent_side,
        ),
    }  # fmt: skip


def make_tokenizer(shapes: Shapes) -> BertTokenizer:
    """Of the prompts' words, all letters and fillers."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789-_<>.,")
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    known = list(dict.fromkeys(known))
    known += [f"filler{number}" for number in range(shapes.vocabulary - len(known))]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_text("\n".join(known) + "\n")
        tokenizer = BertTokenizer(str(vocabulary))
    assert len(tokenizer) == shapes.vocabulary
    return tokenizer


def make_scheduler() -> DDIMScheduler:
    """As published."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip


def open_shapes(shapes: Shapes, device: torch.device) -> LatentDiffusion:
    """A model with random weights, in memory."""
    with device:
        pieces = build(shapes)
    model = LatentDiffusion(
        tokenizer=make_tokenizer(shapes), scheduler_config=make_scheduler().config, family="ldm", **pieces
    )
    model.source = BaseSource(name=shapes.name, revision=None, folder=Path("in-memory"))
    return model


def save_shapes(shapes: Shapes, folder: Path) -> Path:
    """The same as a folder that generators open."""
    torch.manual_seed(0)
    pieces = build(shapes)
    LDMTextToImagePipeline(
        vqvae=pieces["autoencoder"], bert=pieces["text_encoder"], unet=pieces["unet"], scheduler=make_scheduler(),
        tokenizer=make_tokenizer(shapes),
    ).save_pretrained(folder)  # fmt: skip
    return folder


def count_parameters(shapes: Shapes) -> dict[str, int]:
    """Of text encoder, U-Net and autoencoder, without making them."""
    with torch.device("meta"):
        return {name: sum(value.numel() for value in piece.parameters()) for name, piece in build(shapes).items()}


def count_operations(shapes: Shapes) -> dict[str, int]:
    """Of a forward pass of each of ``PIECES`` for one image, two for a multiplication and its addition."""
    with torch.device("meta"):
        pieces = build(shapes)
        side = shapes.latent_side
        latents, images = torch.empty(1, 4, side, side), torch.empty(1, 3, 8 * side, 8 * side)
        ids, context = torch.zeros(1, TOKENS, dtype=torch.int64), torch.empty(1, TOKENS, shapes.text_width)
        times = torch.zeros(1)
    text, unet, autoencoder = pieces["text_encoder"].model, pieces["unet"], pieces["autoencoder"]
    calls: tuple[Callable[[], object], ...] = (
        lambda: autoencoder.encode(images),
        lambda: text(ids),
        lambda: unet(latents, times, encoder_hidden_states=context),
        lambda: autoencoder.decode(latents),
    )
    return {name: _operations(call) for name, call in zip(PIECES, calls, strict=True)}


def step_operations(forward: dict[str, int], *, encoded: bool, prompts: float) -> float:
    """Of a training step, for one image.

    Args:
        forward: as :func:`count_operations` gives it.
        encoded: whether the image goes through the autoencoder.
        prompts: that go through the text encoder for each image.

    What is frozen has no gradients of its own, and the way back costs what the way forth does.
    """
    return encoded * forward["VAE encoder"] + 2 * prompts * forward["text encoder"] + 2 * forward["U-Net"]


def shares(forward: dict[str, int]) -> str:
    """A Markdown row: each piece's operations as a multiple of the U-Net's."""
    return " | ".join(f"{forward[name] / forward['U-Net']:.3f}" for name in PIECES)


def _operations(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return int(counter.get_total_flops())
