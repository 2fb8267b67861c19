"""The ADM network: diffusers' ``UNet2DModel``, and the two things that its configuration cannot say.

Its weights are drawn, made to fit other classes and channels, and saved here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from genmix_transforms.files.atomic import write_text
from genmix_transforms.generators.adm.configuration import GROUPS, ADMConfiguration
from genmix_transforms.generators.class_embedding import ClassEmbedding
from genmix_transforms.generators.folder import CONFIG, write_weights

WEIGHTS = "diffusion_pytorch_model.safetensors"
"""Diffusers' name for the weights in a model's folder."""

_PREFIX = "ADM"
_ROWS = "class_embedding.weight"
_ENDS = ("conv_in.weight", "conv_out.weight", "conv_out.bias")


class ADMUNet(UNet2DModel):
    """A ``UNet2DModel`` with a fixed number of attention heads, or a time embedding as wide as the original's.

    Diffusers' network has one number of channels a head for all levels, and a time embedding tied to the width of the
    first level. The official network of 128 pixels has four heads everywhere; that of 512 has a first level half as
    wide as its time embedding. Only such networks are of this class. In their ``config.json`` the block types begin
    with "ADM", so that a plain ``UNet2DModel`` refuses the folder, instead of drawing other images from it.

    Args:
        sample_size: side of the images in pixels.
        in_channels: channels of the noisy image.
        out_channels: of the prediction.
        down_block_types: names of diffusers' blocks, each after "ADM".
        up_block_types: likewise.
        block_out_channels: the levels' widths.
        layers_per_block: residual blocks a level.
        downsample_type: "resnet" or "conv".
        upsample_type: likewise.
        dropout: of the residual blocks.
        attention_head_dim: channels a head, where ``num_heads`` is None.
        attn_norm_num_groups: groups of the middle's attention norm.
        resnet_time_scale_shift: "scale_shift" or "default".
        num_class_embeds: rows of the class embedding; None: no classes.
        model_channels: width of the sinusoidal time embedding; what follows is four times as wide.
        num_heads: attention heads at every level; None: by ``attention_head_dim``.
    """

    @register_to_config
    def __init__(
        self,
        *,
        sample_size: int = 64,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] = (),
        up_block_types: Sequence[str] = (),
        block_out_channels: Sequence[int] = (),
        layers_per_block: int = 2,
        downsample_type: str = "resnet",
        upsample_type: str = "resnet",
        dropout: float = 0.0,
        attention_head_dim: int = 64,
        attn_norm_num_groups: int = GROUPS,
        resnet_time_scale_shift: str = "scale_shift",
        num_class_embeds: int | None = None,
        model_channels: int = 64,
        num_heads: int | None = None,
        # Those below have one value in every ADM; they stand here because diffusers writes them to the folder's
        # config, and warns on reading what is not an argument.
        center_input_sample: bool = False,
        time_embedding_type: str = "positional",
        time_embedding_dim: int | None = None,
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        mid_block_type: str = "UNetMidBlock2D",
        mid_block_scale_factor: float = 1,
        downsample_padding: int = 1,
        act_fn: str = "silu",
        norm_num_groups: int = GROUPS,
        norm_eps: float = 1e-5,
        add_attention: bool = True,
        class_embed_type: str | None = None,
        num_train_timesteps: int | None = None,
    ) -> None:
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=tuple(name.removeprefix(_PREFIX) for name in down_block_types),
            up_block_types=tuple(name.removeprefix(_PREFIX) for name in up_block_types),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            downsample_type=downsample_type,
            upsample_type=upsample_type,
            dropout=dropout,
            attention_head_dim=attention_head_dim,
            attn_norm_num_groups=attn_norm_num_groups,
            resnet_time_scale_shift=resnet_time_scale_shift,
            num_class_embeds=num_class_embeds,
            time_embedding_dim=4 * model_channels,
        )
        self.register_to_config(down_block_types=tuple(down_block_types), up_block_types=tuple(up_block_types))
        self.time_proj: Timesteps = Timesteps(model_channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding: TimestepEmbedding = TimestepEmbedding(model_channels, 4 * model_channels)
        if num_heads is not None:
            set_heads(self, num_heads)


def set_heads(network: nn.Module, heads: int) -> None:
    """Share the channels of every attention in ``network`` among so many heads."""
    for module in network.modules():
        if isinstance(module, Attention):
            module.heads = heads
            module.scale = (module.inner_dim // heads) ** -0.5


def _with_class_embedding(network: UNet2DModel) -> UNet2DModel:
    """Let a network take soft labels; its weights and their names stay what they are."""
    if network.class_embedding is not None:
        network.class_embedding = ClassEmbedding.of(network.class_embedding)
    return network


def build_network(configuration: ADMConfiguration) -> UNet2DModel:
    """The network of a configuration, its weights not drawn yet as ADM's are: see :func:`initialise`.

    Images ``(N, C, H, W)``, float, timesteps ``(N,)`` and labels int64 ``(N,)`` to the noise ``(N, C, H, W)``, or with
    ``learn_sigma`` noise and variance ``(N, 2 C, H, W)``: a plain ``UNet2DModel`` wherever that can say it, else an
    :class:`ADMUNet`.

    Source: Dhariwal, Nichol (arXiv 2105.05233), section 3: BigGAN's residual blocks for up- and downsampling, adaptive
    group normalization, attention at several resolutions.
    """
    resampling = "resnet" if configuration.resblock_updown else "conv"
    down, up = (
        tuple(
            f"Attn{side}Block2D" if attends else f"Resnet{way}Block2D" if resampling == "resnet" else f"{side}Block2D"
            for attends in levels
        )
        for side, way, levels in (
            ("Down", "Downsample", configuration.attention_levels),
            ("Up", "Upsample", configuration.attention_levels[::-1]),
        )
    )
    options = {
        "sample_size": configuration.image_size,
        "in_channels": configuration.input_channels,
        "out_channels": configuration.output_channels,
        "block_out_channels": configuration.widths,
        "layers_per_block": configuration.num_res_blocks,
        "downsample_type": resampling,
        "upsample_type": resampling,
        "dropout": configuration.dropout,
        # Without it diffusers leaves out the norm of the middle's attention.
        "attn_norm_num_groups": GROUPS,
        "resnet_time_scale_shift": "scale_shift" if configuration.use_scale_shift_norm else "default",
        "num_class_embeds": configuration.class_rows,
    }
    fixed_heads = configuration.num_head_channels == -1
    if not fixed_heads and configuration.widths[0] == configuration.num_channels:
        return _with_class_embedding(
            UNet2DModel(
                down_block_types=down,
                up_block_types=up,
                attention_head_dim=configuration.num_head_channels,
                time_embedding_dim=4 * configuration.num_channels,
                **options,
            )
        )
    return _with_class_embedding(
        ADMUNet(
            down_block_types=tuple(_PREFIX + name for name in down),
            up_block_types=tuple(_PREFIX + name for name in up),
            attention_head_dim=GROUPS if fixed_heads else configuration.num_head_channels,
            model_channels=configuration.num_channels,
            num_heads=configuration.num_heads if fixed_heads else None,
            **options,
        )
    )


@torch.no_grad()
def initialise(network: nn.Module, *, seed: int) -> None:
    """Draw the weights as the original does: PyTorch's own way, and zero for what ends a branch and for the output.

    Every residual and attention block is the identity at first, and the prediction zero. Always on the CPU and in the
    same order, so that a seed gives the same network everywhere.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv1d, nn.Linear, nn.GroupNorm, nn.Embedding)):
                module.reset_parameters()
    ends: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, ResnetBlock2D):
            ends.append(module.conv2)
        elif isinstance(module, Attention):
            ends.append(module.to_out[0])
        elif isinstance(module, UNet2DModel):
            ends.append(module.conv_out)
    for end in ends:
        for parameter in end.parameters():
            parameter.zero_()


def adapt_network(
    weights: Mapping[str, Tensor],
    *,
    old: ADMConfiguration,
    new: ADMConfiguration,
    old_classes: Sequence[str],
    new_classes: Sequence[str],
) -> dict[str, Tensor]:
    """The state dict of a network of ``new``, from that of one of ``old``, which differs in classes and channels alone.

    All tensors are new.
    """
    adapted = {name: tensor.detach().clone() for name, tensor in weights.items() if name not in (_ROWS, *_ENDS)}
    if new.class_cond and not old.class_cond:
        width = weights["time_embedding.linear_2.bias"]
        adapted[_ROWS] = width.new_zeros(new.class_rows or 0, len(width))
    elif new.class_cond:
        rows = weights[_ROWS].detach()
        mean = rows[: old.num_classes].mean(0)
        known = dict(zip(old_classes, rows, strict=False))
        found = [known.get(name, mean) for name in new_classes]
        if new.null_class:
            found.append(rows[old.num_classes] if old.null_class else mean)
        adapted[_ROWS] = torch.stack(found)
    inputs = new.input_channels // new.channels
    adapted["conv_in.weight"] = _spread_inputs(weights["conv_in.weight"], parts=inputs, channels=new.channels)
    outputs = new.output_channels // new.channels
    for name in ("conv_out.weight", "conv_out.bias"):
        adapted[name] = _average_outputs(weights[name], parts=outputs, channels=new.channels)
    return adapted


def _spread_inputs(weight: Tensor, *, parts: int, channels: int) -> Tensor:
    """``(W, parts * old, 3, 3)`` to ``(W, parts * channels, 3, 3)``: the sum over a part's channels stays as it is."""
    split = weight.detach().unflatten(1, (parts, -1))
    if split.shape[2] == channels:
        return weight.detach().clone()
    share: Tensor = split.sum(2, keepdim=True) / channels
    return share.expand(-1, -1, channels, -1, -1).flatten(1, 2).contiguous()


def _average_outputs(value: Tensor, *, parts: int, channels: int) -> Tensor:
    """``(parts * old, ...)`` to ``(parts * channels, ...)``: every channel of a part is the mean of the old ones."""
    split = value.detach().unflatten(0, (parts, -1))
    if split.shape[1] == channels:
        return value.detach().clone()
    mean: Tensor = split.mean(1, keepdim=True)
    return mean.expand(-1, channels, *mean.shape[2:]).flatten(0, 1).contiguous()


def save_network(folder: Path, network: Any, *, provenance: dict[str, Any] | None = None) -> None:
    """Write a diffusers model so that its ``from_pretrained`` opens the folder, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / WEIGHTS, network.state_dict(), provenance=provenance or {})
    write_text(folder / CONFIG, network.to_json_string())
