"""The flags of ADM: the original's defaults, what they make, and what makes no network."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genmix_transforms.errors import InputError
from genmix_transforms.generators.adm import ADMConfiguration
from genmix_transforms.generators.adm.configuration import OFFICIAL, PRESETS, choose_configuration


def test_the_published_networks_are_those_of_the_papers_table() -> None:
    # Dhariwal, Nichol, appendix I, and the flags in the repository's README.
    assert {name: (f.num_channels, f.channel_mult, f.num_res_blocks) for name, f in OFFICIAL.items()} == {
        "64": (192, (1, 2, 3, 4), 3),
        "128": (256, (1, 1, 2, 3, 4), 2),
        "256": (256, (1, 1, 2, 2, 4, 4), 2),
        "256-uncond": (256, (1, 1, 2, 2, 4, 4), 2),
        "512": (256, (0.5, 1, 1, 2, 2, 4, 4), 2),
        "64-256-upsampler": (192, (1, 1, 2, 2, 4, 4), 2),
        "128-512-upsampler": (192, (1, 1, 2, 2, 4, 4), 2),
    }
    assert OFFICIAL["64"].noise_schedule == "cosine"
    assert OFFICIAL["64"].use_new_attention_order
    assert all(OFFICIAL[name].noise_schedule == "linear" for name in OFFICIAL if name != "64")
    assert OFFICIAL["128"].heads(1024) == OFFICIAL["128"].heads(512) == 4
    assert OFFICIAL["256"].heads(1024) == 16
    assert OFFICIAL["512"].widths == (128, 256, 256, 512, 512, 1024, 1024)
    assert OFFICIAL["256"].attention_levels == (False, False, False, True, True, True)
    assert (OFFICIAL["256"].input_channels, OFFICIAL["256"].output_channels) == (3, 6)
    assert OFFICIAL["64-256-upsampler"].input_channels == 6
    assert not OFFICIAL["256-uncond"].class_rows


def test_flags_left_out_have_the_originals_defaults() -> None:
    assert ADMConfiguration.from_flags({}) == ADMConfiguration(
        image_size=64,
        num_channels=128,
        num_res_blocks=2,
        channel_mult=(1, 2, 3, 4),
        attention_resolutions=(16, 8),
        num_heads=4,
        num_head_channels=-1,
        use_new_attention_order=False,
        learn_sigma=False,
        class_cond=False,
        noise_schedule="linear",
        diffusion_steps=1000,
        use_scale_shift_norm=True,
        resblock_updown=False,
    )


def test_flags_as_on_the_originals_command_line() -> None:
    line = (
        "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --dropout 0.1 --image_size 64 "
        "--learn_sigma True --noise_schedule cosine --num_channels 192 --num_head_channels 64 --num_res_blocks 3 "
        "--resblock_updown True --use_new_attention_order True --use_fp16 True --use_scale_shift_norm True"
    ).split()
    flags = {name.removeprefix("--"): value for name, value in zip(line[::2], line[1::2], strict=True)}
    assert ADMConfiguration.from_flags(flags) == OFFICIAL["64"]


def test_the_flags_of_classifiers_and_upsamplers() -> None:
    flags = {"image_size": 128, "classifier_depth": "2", "classifier_pool": "attention", "classifier_use_fp16": True}
    configuration = ADMConfiguration.from_flags(flags)
    assert (configuration.num_channels, configuration.num_res_blocks, configuration.num_head_channels) == (128, 2, 64)
    assert configuration.resblock_updown
    large = ADMConfiguration.from_flags({"large_size": 256, "small_size": 64})
    assert (large.image_size, large.input_channels) == (256, 6)


@given(
    st.builds(
        ADMConfiguration,
        image_size=st.sampled_from([16, 32, 48]),
        num_channels=st.sampled_from([32, 64, 192]),
        channel_mult=st.sampled_from([(1,), (1, 2), (1, 1, 2), (2, 3)]),
        class_cond=st.just(True),
        null_class=st.booleans(),
        learn_sigma=st.booleans(),
        channels=st.integers(1, 5),
    )
)
def test_flags_go_through_json_and_come_back(configuration: ADMConfiguration) -> None:
    assert ADMConfiguration.from_flags(json.loads(json.dumps(configuration.to_flags()))) == configuration


@given(st.sampled_from(["256", "64", "small-32", "small-64"]), st.integers(0, 3))
def test_another_size_keeps_attention_at_its_levels(name: str, halvings: int) -> None:
    configuration = PRESETS[name]
    smaller = configuration.at(max(configuration.image_size >> halvings, configuration.smallest_step))
    assert smaller.attention_levels == configuration.attention_levels
    assert smaller.widths == configuration.widths


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"image_size": 63, "channel_mult": (1, 2)}, "must be a multiple of 2, got 63; bring the images to 64 pixels"),
        ({"image_size": 100}, "give channel_mult: the original has one for 512, 256, 128, 64 pixels only, not for 100"),
        ({"num_channels": 48}, "must be a multiple of it, got 48, 96, 144, 192"),
        ({"num_channels": 0}, "num_channels must be a whole number, at least 1, got 0"),
        ({"num_head_channels": 48}, "channels are no multiple of num_head_channels, 48"),
        ({"num_heads": 5, "attention_resolutions": (8,)}, "512 channels cannot be shared by 5 attention heads"),
        ({"noise_schedule": "sigmoid"}, "noise_schedule must be one of linear, cosine, got 'sigmoid'"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"null_class": True}, "null_class is a row of the class embedding"),
        ({"class_cond": True, "num_classes": 0}, "num_classes must be a whole number"),
        ({"size": 64}, "no such flag: size; there are image_size, num_channels, .*large_size"),
        ({"learn_sigma": "maybe"}, "learn_sigma must be true or false, got 'maybe'"),
        ({"num_channels": "many"}, "invalid literal"),
        ({"channel_mult": 3}, "channel_mult must be a list of numbers, got 3"),
        ({"predict_xstart": True}, "predict_xstart True is not read by this release"),
        ({"rescale_timesteps": True, "diffusion_steps": 4000}, "rescale_timesteps True is not read"),
        ({"num_heads_upsample": 2}, "num_heads_upsample 2 is not read"),
        ({"classifier_pool": "spatial"}, "classifier_pool 'spatial' is not read by this release, only attention"),
    ],
)
def test_flags_that_make_no_network(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ADMConfiguration.from_flags(flags)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([*ADMConfiguration().to_flags(), "large_size", "classifier_width"]), ANY, max_size=4
    )
)
def test_whatever_stands_in_the_flags_there_is_a_configuration_or_one_clear_error(flags: dict[str, Any]) -> None:
    try:
        configuration = ADMConfiguration.from_flags(flags)
    except InputError:
        return
    assert ADMConfiguration.from_flags(json.loads(json.dumps(configuration.to_flags()))) == configuration


def test_files_that_hold_no_flags(tmp_path: Path) -> None:
    file = tmp_path / "flags.json"
    with pytest.raises(InputError, match=r"flags\.json: no such file"):
        ADMConfiguration.from_file(file)
    for content, message in (("{", "not readable JSON"), ("[1]", "expected flags by name, got a list")):
        file.write_text(content)
        with pytest.raises(InputError, match=message):
            ADMConfiguration.from_file(file)


def test_the_network_for_a_data_set() -> None:
    options: dict[str, Any] = {"channels": None, "null_class": None}
    chosen = choose_configuration(None, classes=3, resolution=48, **options)
    assert (chosen.image_size, chosen.num_classes, chosen.class_cond, chosen.channels) == (48, 3, True, 1)
    assert chosen.widths == PRESETS["small-32"].widths
    assert choose_configuration(None, classes=1, resolution=None, **options) == replace(
        PRESETS["small-64"], class_cond=False, channels=1
    )
    assert choose_configuration(OFFICIAL["256"], classes=3, resolution=128, **options) == replace(
        OFFICIAL["256"], image_size=128, attention_resolutions=(16, 8, 4), num_classes=3
    )
    with pytest.raises(InputError, match="no configuration 'large'; there are 64, 128"):
        choose_configuration("large", classes=3, resolution=None, **options)
    with pytest.raises(InputError, match="must be a multiple of 4, got 30; bring the images to 32 pixels"):
        choose_configuration(None, classes=3, resolution=30, **options)
