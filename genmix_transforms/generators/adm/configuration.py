"""What an ADM network is made of: the flags of the original implementation, by their names and with their defaults."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.checks import whole_number

GROUPS = 32
"""Groups of every GroupNorm: all widths are multiples of it."""

NoiseScheduleName = Literal["linear", "cosine"]

NOISE_SCHEDULES: tuple[NoiseScheduleName, ...] = get_args(NoiseScheduleName)

_DEFAULT_MULTIPLIERS = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
}
_NO_MATTER = ("use_fp16", "use_checkpoint", "timestep_respacing", "use_kl", "rescale_learned_sigmas")
"""Flags of the original that say how it computes, trains or samples, and not what the weights are."""


@dataclass(frozen=True, kw_only=True)
class ADMConfiguration:
    """The flags that a network was trained with, named and defaulted as in OpenAI's guided-diffusion.

    Args:
        image_size: side of the images in pixels, divisible by 2 for each level but the first.
        num_channels: the width that ``channel_mult`` multiplies; the time embedding is four times as wide.
        num_res_blocks: residual blocks a level.
        channel_mult: a multiplier for each level, the finest first; None: the original's for 64, 128, 256 and 512.
        attention_resolutions: sides, in pixels, of the levels with self-attention.
        num_heads: attention heads, where ``num_head_channels`` is -1.
        num_head_channels: channels a head; -1: ``num_heads`` heads everywhere.
        use_new_attention_order: how the original stores queries, keys and values; read when weights are converted.
        learn_sigma: the network tells the variance too, and has twice the output channels.
        class_cond: it is told the class.
        num_classes: how many there are, if so.
        noise_schedule: "linear" or "cosine".
        diffusion_steps: timesteps of the diffusion that it was trained on.
        dropout: in the residual blocks, while training.
        use_scale_shift_norm: the embedding scales and shifts after the norm, instead of being added before it.
        resblock_updown: residual blocks change the resolution, instead of plain convolutions.
        small_size: of an upsampler: side of the images that it starts from. None: no upsampler.
        channels: of the images. Not a flag of the original, which knows 3.
        null_class: one more row of class embedding, for "no class": what training with label dropout teaches, and
            classifier-free guidance needs. Not a flag of the original either.

    Raises:
        InputError: values that make no network.

    Source: Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis" (arXiv 2105.05233), appendix I.

    Example:
        >>> ADMConfiguration(image_size=64, num_channels=192, num_res_blocks=3).widths
        (192, 384, 576, 768)
    """

    image_size: int = 64
    num_channels: int = 128
    num_res_blocks: int = 2
    channel_mult: tuple[float, ...] | None = None
    attention_resolutions: tuple[int, ...] = (16, 8)
    num_heads: int = 4
    num_head_channels: int = -1
    use_new_attention_order: bool = False
    learn_sigma: bool = False
    class_cond: bool = False
    num_classes: int = 1000
    noise_schedule: NoiseScheduleName = "linear"
    diffusion_steps: int = 1000
    dropout: float = 0.0
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    small_size: int | None = None
    channels: int = 3
    null_class: bool = False

    def __post_init__(self) -> None:
        multipliers = self.channel_mult or _DEFAULT_MULTIPLIERS.get(self.image_size)
        if multipliers is None:
            raise InputError(
                f"ADM: give channel_mult: the original has one for {', '.join(map(str, _DEFAULT_MULTIPLIERS))} pixels "
                f"only, not for {self.image_size}"
            )
        object.__setattr__(self, "channel_mult", tuple(multipliers))
        object.__setattr__(self, "attention_resolutions", tuple(self.attention_resolutions))
        for name in ("image_size", "num_channels", "num_res_blocks", "num_heads", "diffusion_steps", "channels"):
            whole_number(getattr(self, name), name=f"ADM: {name}", least=1)
        whole_number(self.num_classes, name="ADM: num_classes", least=1)
        if self.num_head_channels != -1:
            whole_number(self.num_head_channels, name="ADM: num_head_channels (or -1)", least=1)
        for side in self.attention_resolutions:
            whole_number(side, name="ADM: attention_resolutions", least=1)
        if self.noise_schedule not in NOISE_SCHEDULES:
            raise InputError(
                f"ADM: noise_schedule must be one of {', '.join(NOISE_SCHEDULES)}, got {self.noise_schedule!r}"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"ADM: dropout must be at least 0 and below 1, got {self.dropout}")
        if self.null_class and not self.class_cond:
            raise InputError("ADM: null_class is a row of the class embedding: it needs class_cond")
        if self.image_size % self.smallest_step:
            raise InputError(
                f"ADM: a network of {len(self.widths)} levels halves the image {len(self.widths) - 1} times: the size "
                f"must be a multiple of {self.smallest_step}, got {self.image_size}; bring the images to "
                f"{-(-self.image_size // self.smallest_step) * self.smallest_step} pixels, or give fewer levels "
                "(channel_mult)"
            )
        uneven = [width for width in self.widths if width % GROUPS or not width]
        if uneven:
            raise InputError(
                f"ADM: the norms have {GROUPS} groups: num_channels times each of channel_mult must be a multiple of "
                f"it, got {', '.join(map(str, self.widths))}"
            )
        for width in self.attention_widths:
            if self.num_head_channels != -1 and width % self.num_head_channels:
                raise InputError(
                    f"ADM: {width} channels are no multiple of num_head_channels, {self.num_head_channels}"
                )
            if width % self.heads(width):
                raise InputError(f"ADM: {width} channels cannot be shared by {self.heads(width)} attention heads")

    @property
    def smallest_step(self) -> int:
        """What sizes must be a multiple of: the network halves the image once for each level but the first."""
        return int(2 ** (len(self.channel_mult or ()) - 1))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, the finest first."""
        return tuple(int(multiplier * self.num_channels) for multiplier in self.channel_mult or ())

    @property
    def attention_levels(self) -> tuple[bool, ...]:
        """Which levels have self-attention. The middle always has."""
        strides = {self.image_size // side for side in self.attention_resolutions}
        return tuple(2**level in strides for level in range(len(self.widths)))

    @property
    def attention_widths(self) -> tuple[int, ...]:
        """The widths at which there is attention."""
        levels = zip(self.widths, self.attention_levels, strict=True)
        return (*(width for width, here in levels if here), self.widths[-1])

    def heads(self, width: int) -> int:
        """Attention heads at a width."""
        return self.num_heads if self.num_head_channels == -1 else max(1, width // self.num_head_channels)

    @property
    def input_channels(self) -> int:
        """Channels that go in: an upsampler sees the smaller image beside the noisy one."""
        return self.channels * (1 if self.small_size is None else 2)

    @property
    def output_channels(self) -> int:
        """Channels that come out: the noise, and with ``learn_sigma`` the variance."""
        return self.channels * (2 if self.learn_sigma else 1)

    @property
    def class_rows(self) -> int | None:
        """Rows of the class embedding, that for "no class" included; None without classes."""
        return self.num_classes + self.null_class if self.class_cond else None

    def at(self, image_size: int) -> "ADMConfiguration":
        """The same network for images of another size: attention stays at the same levels, its sides scale along.

        Example:
            >>> OFFICIAL["256"].at(128).attention_resolutions
            (16, 8, 4)
        """
        whole_number(image_size, name="ADM: the size", least=1)
        sides = tuple(image_size >> level for level, here in enumerate(self.attention_levels) if here)
        other = replace(self, image_size=image_size, attention_resolutions=tuple(side for side in sides if side))
        if other.attention_levels != self.attention_levels:
            raise InputError(f"ADM: {image_size} pixels are too few for a network of {len(self.widths)} levels")
        return other

    def adapted(
        self,
        *,
        classes: int,
        channels: int | None = None,
        resolution: int | None = None,
        null_class: bool | None = None,
    ) -> "ADMConfiguration":
        """The same network for so many classes, other channels or another size; None: as they are.

        A network that is told the class still is, if there is only one left; one that is not becomes so with several.
        """
        conditional = self.class_cond or classes > 1
        adapted = replace(
            self,
            class_cond=conditional,
            num_classes=classes if conditional else self.num_classes,
            channels=self.channels if channels is None else channels,
            null_class=conditional and (self.null_class if null_class is None else null_class),
        )
        return adapted if resolution is None else adapted.at(resolution)

    def to_flags(self) -> dict[str, Any]:
        """The flags, as JSON can hold them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any], *, name: str = "ADM") -> "ADMConfiguration":
        """Read flags as they stand in JSON or on the original's command line; those left out have its defaults.

        Args:
            flags: by name. Lists may be text ("32,16,8"), and yes and no too ("True"). An upsampler's ``large_size``
                is the ``image_size``; a classifier's ``classifier_width`` the ``num_channels``, its
                ``classifier_depth`` the ``num_res_blocks``, and so on.
            name: what the errors begin with.

        Raises:
            InputError: a flag that is unknown, has no such value, or asks for what this release does not read.

        Example:
            >>> flags = {"image_size": 32, "num_channels": "64", "channel_mult": "1,2", "attention_resolutions": "16"}
            >>> ADMConfiguration.from_flags(flags).widths
            (64, 128)
        """
        if not isinstance(flags, Mapping):
            raise InputError(f"{name}: expected flags by name, got a {type(flags).__name__}")
        rest = _classifier_flags({key: value for key, value in flags.items() if key not in _NO_MATTER}, name)
        if "large_size" in rest:
            rest["image_size"] = rest.pop("large_size")
        # Timesteps scaled to 1000 are those there are, where there are 1000.
        scaled = (True, "True", "true") if rest.get("diffusion_steps", 1000) in (1000, "1000") else ()
        for key, allowed in (
            ("predict_xstart", (False, "False", "false")),
            ("rescale_timesteps", (False, "False", "false", *scaled)),
            ("num_heads_upsample", (-1, "-1", rest.get("num_heads", 4))),
        ):
            if key in rest and rest[key] not in allowed:
                raise InputError(f"{name}: {key} {rest[key]!r} is not read by this release, only {allowed[0]}")
            rest.pop(key, None)
        known = {field.name: field for field in fields(cls)}
        unknown = [key for key in rest if key not in known]
        if unknown:
            raise InputError(
                f"{name}: no such flag: {', '.join(map(str, unknown))}; there are {', '.join([*known, 'large_size'])}"
            )
        try:
            return cls(**{key: _parse(key, value, known[key].default) for key, value in rest.items()})
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{name}: {str(error).removeprefix('ADM: ')}") from error

    @classmethod
    def from_file(cls, file: str | Path) -> "ADMConfiguration":
        """Read flags from a JSON file: see :meth:`from_flags`."""
        file = Path(file)
        if not file.is_file():
            raise MissingPathError(f"{file}: no such file")
        try:
            flags = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: not readable JSON ({error})") from error
        return cls.from_flags(flags, name=str(file))


def _classifier_flags(flags: dict[str, Any], name: str) -> dict[str, Any]:
    """The flags of a noisy classifier by the names that a network's have; others as they are."""
    if not any(key.startswith("classifier_") for key in flags):
        return flags
    pool = flags.get("classifier_pool", "attention")
    if pool != "attention":
        raise InputError(f"{name}: classifier_pool {pool!r} is not read by this release, only attention")
    renamed: dict[str, Any] = {
        "num_channels": 128,
        "attention_resolutions": (32, 16, 8),
        "num_head_channels": 64,
        "resblock_updown": True,
    }
    names = {"width": "num_channels", "depth": "num_res_blocks"}
    for key, value in flags.items():
        short = key.removeprefix("classifier_")
        if key not in ("classifier_pool", "classifier_scale", "classifier_use_fp16"):
            renamed[names.get(short, short)] = value
    return renamed


def _parse(key: str, value: Any, default: Any) -> Any:
    """One flag's value, from JSON or from the text of a command line."""
    if key in ("channel_mult", "attention_resolutions"):
        parts: Sequence[Any] = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if key == "channel_mult" and not parts:
            return None
        if not isinstance(parts, Sequence):
            raise InputError(f"{key} must be a list of numbers, got {value!r}")
        numbers = tuple(float(part) for part in parts)
        return tuple(int(number) if number == int(number) else number for number in numbers)
    if isinstance(default, bool):
        if value in (True, False):
            return bool(value)
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        raise InputError(f"{key} must be true or false, got {value!r}")
    if default is MISSING or default is None or isinstance(default, int):
        return int(value) if isinstance(value, str) else value
    return float(value) if isinstance(default, float) else str(value)


def _official(image_size: int, **flags: Any) -> ADMConfiguration:
    return ADMConfiguration(
        **{
            "image_size": image_size,
            "num_channels": 256,
            "attention_resolutions": (32, 16, 8),
            "num_head_channels": 64,
            "learn_sigma": True,
            "class_cond": True,
            "resblock_updown": True,
            **flags,
        }
    )


OFFICIAL = {
    "64": _official(
        64, num_channels=192, num_res_blocks=3, use_new_attention_order=True, noise_schedule="cosine", dropout=0.1
    ),
    "128": _official(128, num_heads=4, num_head_channels=-1),
    "256": _official(256),
    "256-uncond": _official(256, class_cond=False),
    "512": _official(512),
    "64-256-upsampler": _official(256, num_channels=192, num_heads=4, num_head_channels=-1, small_size=64),
    "128-512-upsampler": _official(
        512, num_channels=192, channel_mult=(1, 1, 2, 2, 4, 4), attention_resolutions=(32, 16), small_size=128
    ),
}
"""The networks that OpenAI published, by name. "256-uncond" is LSUN's too."""

OFFICIAL_CLASSIFIERS = {
    str(size): _official(size, num_channels=128, num_res_blocks=4 if size == 64 else 2, learn_sigma=False)
    for size in (64, 128, 256, 512)
}
"""The noisy classifiers: ``classifier_width`` is here ``num_channels``, ``classifier_depth`` ``num_res_blocks``."""

PRESETS = {
    **{name: configuration for name, configuration in OFFICIAL.items() if configuration.small_size is None},
    "small-32": _official(
        32, num_channels=64, num_res_blocks=1, channel_mult=(1, 2, 2), attention_resolutions=(8,),
        num_head_channels=32, noise_schedule="cosine", dropout=0.1,
    ),
    "small-64": _official(
        64, num_channels=64, num_res_blocks=1, channel_mult=(1, 2, 2, 4), attention_resolutions=(16, 8),
        num_head_channels=32, noise_schedule="cosine", dropout=0.1,
    ),
}  # fmt: skip
"""Sizes to train from scratch: the published ones, and two for small machines."""


def choose_configuration(
    given: str | Mapping[str, Any] | ADMConfiguration | None,
    *,
    classes: int,
    resolution: int | None,
    channels: int | None,
    null_class: bool | None,
) -> ADMConfiguration:
    """The configuration for so many classes, at the resolution and with the channels asked for.

    ``given`` is a preset's name, flags, or None for the small preset of the resolution. A preset is told the class if
    there are several, and has 1 channel; whatever else is None stays as the configuration has it.

    Raises:
        InputError: no such preset, or values that make no network.

    Example:
        >>> choose_configuration(None, classes=3, resolution=48, channels=None, null_class=None).image_size
        48
    """
    if given is None:
        given = "small-32" if (resolution or 64) < 64 else "small-64"
    if isinstance(given, str):
        if given not in PRESETS:
            raise InputError(f"ADM: no configuration {given!r}; there are {', '.join(PRESETS)}, or give the flags")
        conditional = classes > 1 and PRESETS[given].class_cond
        configuration = replace(PRESETS[given], class_cond=conditional, channels=1)
    elif isinstance(given, ADMConfiguration):
        configuration = given
    else:
        configuration = ADMConfiguration.from_flags(given)
    if configuration.class_cond:
        configuration = replace(configuration, num_classes=classes)
    if channels is not None:
        configuration = replace(configuration, channels=channels)
    if null_class is not None:
        configuration = replace(configuration, null_class=null_class)
    return configuration if resolution is None else configuration.at(resolution)
