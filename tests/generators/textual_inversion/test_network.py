"""A base model taken apart: the pipeline's own numbers, and weights that stay as they came."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, LDMTextToImagePipeline, StableDiffusionPipeline, VQModel

from genmix_transforms.generators.textual_inversion.network import LatentDiffusion


@pytest.fixture(params=["ldm", "stable_diffusion"])
def base(request: pytest.FixtureRequest) -> LatentDiffusion:
    model: LatentDiffusion = request.getfixturevalue(request.param)
    return model


def with_autoencoder(model: LatentDiffusion, autoencoder: Any) -> LatentDiffusion:
    return LatentDiffusion(
        tokenizer=model.tokenizer, text_encoder=model.text_encoder, unet=model.unet, autoencoder=autoencoder,
        scheduler_config=model.scheduler_config, family=model.family,
    )  # fmt: skip


def test_sizes(base: LatentDiffusion) -> None:
    assert (base.native_size, base.latent_shape, base.width, base.pixels_per_latent) == (32, (4, 4, 4), 16, 8)


@torch.no_grad()
def test_the_pipelines_prompt(base: LatentDiffusion, request: pytest.FixtureRequest) -> None:
    prompt = "an image of a cyst"
    ids = base.tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    if base.family == "ldm":
        theirs: Any = LDMTextToImagePipeline.from_pretrained(request.getfixturevalue("ldm_folder"))
        expected = theirs.bert(ids)[0]
    else:
        folder = request.getfixturevalue("stable_diffusion_folder")
        theirs = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
        expected, _ = theirs.encode_prompt(prompt, "cpu", 1, False)
    assert torch.equal(base.encode_text(ids), expected)


@torch.no_grad()
def test_rows_are_put_in_for_the_call_alone(base: LatentDiffusion) -> None:
    first = base.learned.first
    word = base.tokenizer("cyst", add_special_tokens=False).input_ids
    ids = base.tokenizer("cyst", padding="max_length", max_length=77, return_tensors="pt").input_ids
    learned = ids.clone()
    learned[0, 1 : 1 + len(word)] = torch.arange(first, first + len(word))
    keys = set(base.text_encoder.state_dict())
    rows = base.learned.table.weight[word]  # the same vectors, as learned ones
    assert torch.allclose(base.encode_text(learned, rows=rows), base.encode_text(ids), atol=1e-6)
    other = base.encode_text(learned, rows=torch.zeros_like(rows))
    assert not torch.allclose(other, base.encode_text(ids), atol=1e-3)
    assert set(base.text_encoder.state_dict()) == keys
    with pytest.raises(IndexError):
        base.encode_text(learned, rows=rows[:0])
    assert set(base.text_encoder.state_dict()) == keys  # taken out after an error too
    assert base.learned.rows is None


@torch.no_grad()
def test_latents_are_scaled_and_come_back(base: LatentDiffusion) -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, std = base.encode_images(images)
    theirs = base.autoencoder.encode(images).latent_dist
    assert torch.allclose(mean, theirs.mean * 0.18215)
    assert torch.allclose(std, theirs.std * 0.18215)
    assert torch.allclose(base.decode(mean), base.autoencoder.decode(theirs.mean).sample, atol=1e-5)


@torch.no_grad()
def test_autoencoders_that_know_one_latent_for_an_image(ldm: LatentDiffusion) -> None:
    torch.manual_seed(0)
    widths = (4, 4, 4, 4)
    tiny = AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths, latent_channels=4)
    vector = VQModel(
        block_out_channels=(4, 4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=2, num_vq_embeddings=8,
    )  # fmt: skip
    for autoencoder in (tiny, vector):
        model = with_autoencoder(ldm, autoencoder)
        mean, std = model.encode_images(torch.rand(1, 3, 32, 32))
        assert mean.shape == (1, 4, 4, 4)
        assert std.abs().sum() == 0
        assert model.decode(mean).shape == (1, 3, 32, 32)
        assert model.native_size == 32


def test_another_unet_shares_the_rest_and_keeps_the_hash(ldm: LatentDiffusion) -> None:
    import copy

    unet = copy.deepcopy(ldm.unet)
    with torch.no_grad():
        next(unet.parameters()).add_(1)
    other = ldm.with_unet(unet)
    assert other.unet is unet
    assert ldm.unet is not unet
    assert other.text_encoder is ldm.text_encoder
    assert other.weights_hash == ldm.weights_hash
    assert other.source == ldm.source
    sample, context = torch.ones(1, 4, 4, 4), torch.zeros(1, 77, 16)
    with torch.no_grad():
        assert not torch.equal(
            other.denoise(sample, torch.tensor([5]), context), ldm.denoise(sample, torch.tensor([5]), context)
        )


def test_the_hash_is_of_every_part(ldm: LatentDiffusion, ldm_folder: Path) -> None:
    from genmix_transforms.generators.textual_inversion.base_model import find_base_model, open_base_model

    hashes = {ldm.weights_hash}
    for part in ("text_encoder", "unet", "autoencoder"):
        model = open_base_model(find_base_model(ldm_folder))
        with torch.no_grad():
            next(getattr(model, part).parameters()).add_(1)
        hashes.add(model.weights_hash)
    assert len(hashes) == 4
