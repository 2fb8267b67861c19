"""The classifier of noisy images that guides sampling: the first half of the network, and attention pooling."""

import inspect
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, get_down_block
from torch import Tensor, nn
from torch.nn import functional as F

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm.configuration import GROUPS, ADMConfiguration
from genmix_transforms.generators.adm.network import WEIGHTS, save_network
from genmix_transforms.generators.folder import CONFIG, read_weights


class AttentionPool(nn.Module):
    """One attention query, the mean of all positions, gathers the image into a vector of logits.

    Source: Radford et al. (CLIP, arXiv 2103.00020), section 2.4, as Dhariwal, Nichol take it over.
    """

    def __init__(self, *, side: int, width: int, head_channels: int, outputs: int) -> None:
        super().__init__()
        self.heads: int = width // head_channels
        self.positional_embedding: nn.Parameter = nn.Parameter(torch.randn(width, side**2 + 1) / width**0.5)
        self.qkv: nn.Linear = nn.Linear(width, 3 * width)
        self.out: nn.Linear = nn.Linear(width, outputs)

    def forward(self, values: Tensor) -> Tensor:
        """``(N, width, side, side)`` to ``(N, outputs)``."""
        values = values.flatten(2)
        values = torch.cat([values.mean(2, keepdim=True), values], dim=2) + self.positional_embedding
        # Queries, keys and values: (N, heads, positions, head_channels). Only the first position's answer is used.
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(values.mT).chunk(3, dim=2)
        )
        gathered = F.scaled_dot_product_attention(query[:, :, :1], key, value)
        logits: Tensor = self.out(gathered.transpose(1, 2).flatten(1))
        return logits


class NoisyClassifier(ModelMixin, ConfigMixin):
    """Noisy images and timesteps to logits: the encoder of an ADM network, then attention pooling.

    Saved and opened as diffusers' models are, with ``save_pretrained`` and ``from_pretrained``.

    Args:
        image_size: side of the images in pixels; the position embedding is made for it.
        num_channels: the width that ``channel_mult`` multiplies ("classifier_width").
        num_res_blocks: residual blocks a level ("classifier_depth").
        channel_mult: a multiplier for each level.
        attention_resolutions: sides of the levels with self-attention.
        num_head_channels: channels a head; 64 in the published ones.
        num_classes: logits.
        channels: of the images.
        use_scale_shift_norm: as in :class:`ADMConfiguration`.
        resblock_updown: likewise.
        dropout: likewise.

    Source: Dhariwal, Nichol (arXiv 2105.05233), section 4 and appendix H.

    Example:
        >>> classifier = NoisyClassifier(
        ...     image_size=8, num_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(4,),
        ...     num_head_channels=32, num_classes=3, channels=1,
        ... )
        >>> classifier(torch.zeros(2, 1, 8, 8), torch.tensor([0, 999])).shape
        torch.Size([2, 3])
    """

    training_set: Mapping[str, Any] | None = None
    """The record of the images that it was trained on; None: not known."""

    @register_to_config
    def __init__(
        self,
        *,
        image_size: int = 64,
        num_channels: int = 128,
        num_res_blocks: int = 2,
        channel_mult: Sequence[float] | None = None,
        attention_resolutions: Sequence[int] = (32, 16, 8),
        num_head_channels: int = 64,
        num_classes: int = 1000,
        channels: int = 3,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        flags = ADMConfiguration(
            image_size=image_size,
            num_channels=num_channels,
            num_res_blocks=num_res_blocks,
            channel_mult=tuple(channel_mult) if channel_mult else None,
            attention_resolutions=tuple(attention_resolutions),
            num_head_channels=num_head_channels,
            num_classes=num_classes,
            class_cond=True,
            channels=channels,
            use_scale_shift_norm=use_scale_shift_norm,
            resblock_updown=resblock_updown,
            dropout=dropout,
        )
        shift = "scale_shift" if use_scale_shift_norm else "default"
        embedding = 4 * num_channels
        self.conv_in: nn.Conv2d = nn.Conv2d(channels, flags.widths[0], 3, padding=1)
        self.time_proj: Timesteps = Timesteps(num_channels, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding: TimestepEmbedding = TimestepEmbedding(num_channels, embedding)
        self.down_blocks: nn.ModuleList = nn.ModuleList()
        inputs = flags.widths[0]
        for level, (width, attends) in enumerate(zip(flags.widths, flags.attention_levels, strict=True)):
            block = get_down_block(
                "AttnDownBlock2D" if attends else "ResnetDownsampleBlock2D" if resblock_updown else "DownBlock2D",
                num_layers=num_res_blocks,
                in_channels=inputs,
                out_channels=width,
                temb_channels=embedding,
                add_downsample=level < len(flags.widths) - 1,
                resnet_eps=1e-5,
                resnet_act_fn="silu",
                resnet_groups=GROUPS,
                attention_head_dim=num_head_channels,
                downsample_padding=1,
                resnet_time_scale_shift=shift,
                downsample_type="resnet" if resblock_updown else "conv",
                dropout=dropout,
            )
            self.down_blocks.append(block)
            inputs = width
        self.mid_block: UNetMidBlock2D = UNetMidBlock2D(
            in_channels=inputs,
            temb_channels=embedding,
            dropout=dropout,
            resnet_eps=1e-5,
            resnet_act_fn="silu",
            resnet_time_scale_shift=shift,
            attention_head_dim=num_head_channels,
            resnet_groups=GROUPS,
            attn_groups=GROUPS,
        )
        self.norm_out: nn.GroupNorm = nn.GroupNorm(GROUPS, inputs, eps=1e-5)
        self.pool: AttentionPool = AttentionPool(
            side=image_size // flags.smallest_step, width=inputs, head_channels=num_head_channels, outputs=num_classes
        )

    @classmethod
    def of(cls, configuration: ADMConfiguration) -> "NoisyClassifier":
        """The classifier of these flags."""
        if configuration.num_head_channels == -1:
            raise InputError("ADM: a classifier needs num_head_channels: 64 in the published ones")
        flags = configuration.to_flags()
        names = [name for name in inspect.signature(cls.__init__).parameters if name in flags]
        classifier: NoisyClassifier = cls(**{name: flags[name] for name in names})
        return classifier

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **options: Any) -> "NoisyClassifier":
        """Open a folder, or a repository of the hub, as diffusers does."""
        classifier: NoisyClassifier = super().from_pretrained(pretrained_model_name_or_path, **options)
        if (file := Path(pretrained_model_name_or_path) / WEIGHTS).exists():
            classifier.training_set = read_weights(file)[1].get("training_set")
        return classifier

    def forward(self, images: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy images ``(N, C, H, W)`` and timesteps ``(N,)`` to logits ``(N, num_classes)``."""
        embedding = self.time_embedding(self.time_proj(timesteps).to(self.dtype))
        values = self.conv_in(images)
        for block in self.down_blocks:
            values, _ = block(hidden_states=values, temb=embedding)
        values = self.mid_block(values, embedding)
        logits: Tensor = self.pool(F.silu(self.norm_out(values)))
        return logits


def save_classifier(folder: Path, classifier: NoisyClassifier | None) -> None:
    """Write the classifier; None: remove the one that is there."""
    if classifier is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        record = {} if classifier.training_set is None else {"training_set": dict(classifier.training_set)}
        save_network(folder, classifier, provenance=record)


def load_classifier(folder: Path) -> NoisyClassifier | None:
    """The classifier in a folder; None where there is none.

    Raises:
        InputError: it cannot be read.
        CorruptFileError: its weights are damaged.
    """
    if not (folder / CONFIG).exists():
        return None
    weights, provenance = read_weights(folder / WEIGHTS)
    try:
        with torch.device("meta"):  # the weights come from the file, and none need be drawn
            classifier: NoisyClassifier = NoisyClassifier.from_config(NoisyClassifier.load_config(folder))
        classifier.load_state_dict(weights, assign=True)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{folder}: not a classifier that can be read ({error})") from error
    classifier.training_set = provenance.get("training_set")
    classifier.eval()
    return classifier
