"""Tiny latent diffusion models with random weights, in the layout of the hub: the real classes, small."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LDMTextToImagePipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WIDTH = 16
SIDE = 32  # native size in pixels: latents of 4 x 4
WORDS = (
    "a an of the ultrasound image picture scan photo showing breast lung tissue cyst normal benign tumour patch".split()
)


def save_ldm(folder: Path, *, seed: int = 0, safe: bool = True) -> Path:
    """An ``LDMTextToImagePipeline`` with a BERT tokenizer of some words and all letters."""
    torch.manual_seed(seed)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789-_<>.,")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = folder.parent / f"{folder.name}-vocabulary.txt"
    vocabulary.write_text("\n".join(dict.fromkeys(pieces)) + "\n")
    tokenizer = BertTokenizer(str(vocabulary))
    bert = LDMBertModel(
        LDMBertConfig(
            vocab_size=len(tokenizer), encoder_layers=2, encoder_ffn_dim=32, encoder_attention_heads=2, head_dim=8,
            d_model=WIDTH, max_position_embeddings=77,
        )
    )  # fmt: skip
    pipeline = LDMTextToImagePipeline(
        vqvae=_autoencoder(), bert=bert, tokenizer=tokenizer, unet=_unet(), scheduler=_scheduler()
    )
    pipeline.save_pretrained(folder, safe_serialization=safe)
    return folder


def save_stable_diffusion(folder: Path, *, seed: int = 0) -> Path:
    """A ``StableDiffusionPipeline`` with a CLIP tokenizer of letters."""
    torch.manual_seed(seed)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789-_<>.,")
    merges = ["c y", "s t</w>", "cy st</w>"]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    files = folder.parent / f"{folder.name}-tokenizer"
    files.mkdir(exist_ok=True)
    (files / "vocab.json").write_text(json.dumps(vocabulary))
    (files / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    tokenizer = CLIPTokenizer(str(files / "vocab.json"), str(files / "merges.txt"), model_max_length=77)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=77, projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=_autoencoder(), text_encoder=text_encoder, tokenizer=tokenizer, unet=_unet(), scheduler=_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def _autoencoder() -> AutoencoderKL:
    # Four blocks: LDM's pipeline takes latents to be an eighth of the image, whatever the autoencoder says.
    return AutoencoderKL(
        block_out_channels=(4, 4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=2, sample_size=SIDE,
    )  # fmt: skip


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE // 8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
