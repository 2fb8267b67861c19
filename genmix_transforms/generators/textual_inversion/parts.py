"""Whether the parts of a base model fit each other, and what is done with them here."""

from typing import Any

from genmix_transforms.errors import InputError
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion

PREDICTIONS = ("epsilon", "v_prediction")


def check_noise_schedule(config: Any, *, name: str) -> None:
    """Raise an :class:`InputError` for a scheduler whose model neither learns nor draws as is known here.

    Args:
        config: of the scheduler that the base model came with.
        name: of the base model, for the message.
    """
    prediction = config.get("prediction_type", "epsilon")
    if "beta_schedule" not in config or prediction not in PREDICTIONS:
        raise InputError(
            f"{name}: a base model that predicts {' or '.join(PREDICTIONS)} from a schedule of betas is expected; "
            f"this one came with a {config.get('_class_name', 'scheduler')} of prediction_type {prediction!r}"
        )


def check_parts(model: LatentDiffusion, *, name: str) -> None:
    """Raise an :class:`InputError` for parts that do not belong together, or not to a latent diffusion model.

    Args:
        model: opened.
        name: for the message.
    """
    check_noise_schedule(model.scheduler_config, name=name)
    unet, table = model.unet.config, model.learned.table
    side = unet.sample_size
    if isinstance(side, bool) or not isinstance(side, int) or side < 1:
        raise InputError(
            f"{name}: its U-Net says that it was trained on latents of {side!r}; one number is expected, as for square "
            "images (sample_size in unet/config.json)"
        )
    latents = int(model.autoencoder.config.latent_channels)
    if not int(unet.in_channels) == int(unet.out_channels) == latents:
        raise InputError(
            f"{name}: its U-Net takes {unet.in_channels} channels and gives {unet.out_channels}, and its autoencoder's "
            f"latents have {latents}: a model that is told more than a prompt, which is not known here"
        )
    rows = int(getattr(table, "num_embeddings", 0))
    if len(model.tokenizer) > rows:
        raise InputError(
            f"{name}: its tokenizer has {len(model.tokenizer)} tokens, and its text encoder vectors for {rows}: they "
            "are not of one model"
        )
    told, width = unet.cross_attention_dim, int(model.text_encoder.config.hidden_size)
    if (set(told) if isinstance(told, (list, tuple)) else {told}) != {width}:
        raise InputError(
            f"{name}: its text encoder's states have {width} numbers, and its U-Net asks for {told}: they are not of "
            "one model"
        )
