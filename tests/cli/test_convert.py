"""``genmix convert dcgan``, ``genmix convert stylegan`` and ``genmix convert adm``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from genmix_transforms import SyntheticBank
from genmix_transforms.generators.dcgan.network import DCGANNetwork, initialise

Genmix = Callable[..., Any]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A state dict laid out as in the PyTorch DCGAN example."""
    network = DCGANNetwork(resolution=64, channels=3, base_width=4)
    initialise(network, seed=1)
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "netG.pth")
    return tmp_path / "netG.pth"


def test_what_it_proposes_works(genmix: Genmix, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = genmix("convert", "dcgan", weights, "--out", "runs/liver", "--classes", "cyst")
    assert outcome.code == 0, outcome.err
    assert "draws 3 x 64 x 64 images of cyst" in outcome.out
    proposed = outcome.out.splitlines()[-1].split()
    assert proposed[0] == "genmix"
    assert genmix("-q", *proposed[1:]).code == 0
    assert SyntheticBank.load("banks/liver").class_counts == {"cyst": 100}


def test_nothing_is_overwritten(genmix: Genmix, weights: Path, tmp_path: Path) -> None:
    assert genmix("convert", "dcgan", weights, "--out", tmp_path / "run").code == 0
    assert genmix("convert", "dcgan", weights, "--out", tmp_path / "run").code == 2
    assert genmix("convert", "dcgan", weights, "--out", tmp_path / "run", "--overwrite").code == 0


def test_bad_input(genmix: Genmix, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    for arguments, message in (
        ([tmp_path / "none.pth"], "none.pth: no such file"),
        ([tmp_path / "text.pth"], "text.pth"),
        ([weights, weights], "give a class name for each of the 2 files"),
        ([weights, "--classes", "a,b"], "one file a class, got 1 files and 2 names"),
    ):
        outcome = genmix("convert", "dcgan", *arguments, "--out", tmp_path / "run")
        assert outcome.code == 2
        assert message in outcome.err
        assert not (tmp_path / "run").exists()


@pytest.fixture
def styles(tmp_path: Path) -> Path:
    """A state dict laid out as in a PyTorch port of StyleGAN: 16 pixels, colour."""
    torch.manual_seed(0)
    draw = torch.randn
    state = {"g_mapping.map.dense0.weight": draw(4, 4), "g_mapping.map.dense0.bias": draw(4)}
    for level in range(3):
        block = f"g_synthesis.blocks.{level - 1}" if level else "g_synthesis.init_block"
        if level:
            state |= {f"{block}.conv0_up.weight": draw(3, 3, 3, 3), f"{block}.conv0_up.bias": draw(3)}
            taps = torch.tensor([1.0, 2.0, 1.0])
            state[f"{block}.conv0_up.intermediate.kernel"] = (taps[:, None] * taps / 16)[None, None]
        else:
            state |= {f"{block}.const": draw(1, 3, 4, 4), f"{block}.bias": draw(3)}
        conv = f"{block}.{'conv1' if level else 'conv'}"
        state |= {f"{conv}.weight": draw(3, 3, 3, 3), f"{conv}.bias": draw(3)}
        for epilogue in (f"{block}.epi1", f"{block}.epi2"):
            state[f"{epilogue}.top_epi.noise.weight"] = draw(3)
            state[f"{epilogue}.style_mod.lin.weight"] = draw(6, 4)
            state[f"{epilogue}.style_mod.lin.bias"] = draw(6)
        state |= {f"g_synthesis.to_rgb.{level}.weight": draw(3, 3, 1, 1), f"g_synthesis.to_rgb.{level}.bias": draw(3)}
    torch.save(state, tmp_path / "gen.pth")
    return tmp_path / "gen.pth"


def test_a_stylegan_becomes_a_folder_that_fills_a_bank(
    genmix: Genmix, styles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--classes", "cyst,metastasis", "--channels", 1, "--out", "runs/liver"]
    outcome = genmix("convert", "stylegan", styles, *arguments)
    assert outcome.code == 0, outcome.err
    assert "gen.pth: huangzh13/StyleGAN.pytorch" in outcome.out
    assert "draws 1 x 16 x 16 images of cyst, metastasis" in outcome.out
    proposed = outcome.out.splitlines()[-1].split()
    assert genmix("-q", *proposed[1:]).code == 0
    assert SyntheticBank.load("banks/liver").class_counts == {"cyst": 100, "metastasis": 100}
    outcome = genmix("convert", "stylegan", styles, *arguments)
    assert outcome.code == 2
    assert "holds a generator already" in outcome.err
    assert genmix("convert", "stylegan", styles, *arguments, "--overwrite").code == 0


def test_bad_stylegans(genmix: Genmix, styles: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pkl").write_bytes(b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00a\x85R.")
    for arguments, message in (
        ([tmp_path / "none.pkl"], "none.pkl: no such file"),
        ([tmp_path / "bad.pkl"], "bad.pkl: holds os.system"),
        ([weights], "expected a StyleGAN's generator"),
        ([styles, "--resolution", 4], "resolution must be a whole number"),
        ([styles, "--seed", -1], "seed must be a whole number"),
    ):
        outcome = genmix("convert", "stylegan", *arguments, "--out", tmp_path / "run")
        assert outcome.code == 2
        assert message in outcome.err
        assert not (tmp_path / "run").exists()


FLAGS = {
    "image_size": 8,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,2",
    "attention_resolutions": "4",
    "num_head_channels": 32,
    "learn_sigma": True,
    "class_cond": True,
    "num_classes": 2,
    "resblock_updown": True,
}


@pytest.fixture
def adm_weights(tmp_path: Path) -> tuple[Path, Path]:
    """A checkpoint by the original's names, made by going through the key map backwards, and its flags."""
    from genmix_transforms.generators.adm import ADMConfiguration
    from genmix_transforms.generators.adm.convert.guided_diffusion import module_names
    from genmix_transforms.generators.adm.network import build_network

    configuration = ADMConfiguration.from_flags(FLAGS)
    ours = build_network(configuration).state_dict()
    weights = {}
    for theirs, here in module_names(configuration).items():
        for leaf in ("weight", "bias"):
            if theirs.endswith(".qkv"):  # two heads, one after the other: queries, keys, values of each
                parts = [ours[f"{here.removesuffix('qkv')}to_{letter}.{leaf}"] for letter in "qkv"]
                heads = configuration.heads(len(parts[0]))
                value = torch.stack([part.unflatten(0, (heads, -1)) for part in parts], 1).flatten(0, 2)
            elif f"{here}.{leaf}" in ours:
                value = ours[f"{here}.{leaf}"]
            else:
                continue
            kernel = leaf == "weight" and theirs.endswith(("qkv", "proj_out"))
            weights[f"{theirs}.{leaf}"] = value[..., None] if kernel else value
    torch.save(weights, tmp_path / "model.pt")
    (tmp_path / "flags.json").write_text(json.dumps(FLAGS))
    return tmp_path / "model.pt", tmp_path / "flags.json"


def test_an_adm_and_what_it_proposes(
    genmix: Genmix, adm_weights: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import UNet2DModel

    monkeypatch.chdir(tmp_path)
    file, config = adm_weights
    outcome = genmix("convert", "adm", file, "--flags", config, "--classes", "cyst,tumour", "--out", "runs/adm")
    assert outcome.code == 0, outcome.err
    assert "draws 3 x 8 x 8 images of cyst, tumour" in outcome.out
    assert "--counts cyst=100,tumour=100" in outcome.out
    assert genmix("-q", "fill", "runs/adm", "--counts", "tumour=2", "--out", "banks/adm").code == 0
    assert SyntheticBank.load("banks/adm").class_counts == {"cyst": 0, "tumour": 2}
    found = UNet2DModel.from_pretrained("runs/adm", subfolder="unet").conv_in.weight
    assert torch.equal(found, torch.load(file)["input_blocks.0.0.weight"])
    assert genmix("convert", "adm", file, "--flags", config, "--out", "runs/adm").code == 2
    assert genmix("convert", "adm", file, "--flags", config, "--out", "runs/adm", "--overwrite").code == 0


def test_flags_are_taken_by_config_too_as_they_were(
    genmix: Genmix, adm_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    file, flags = adm_weights
    outcome = genmix("convert", "adm", file, "--config", flags, "--out", tmp_path / "adm", "--dry-run")
    assert outcome.code == 0, outcome.err
    assert f"write --flags {flags} for the original's flags" in outcome.err
    assert yaml.safe_load(outcome.out)["flags"] == str(flags)


def test_a_dry_run_checks_and_leaves_nothing(genmix: Genmix, adm_weights: tuple[Path, Path], tmp_path: Path) -> None:
    file, flags = adm_weights
    out = tmp_path / "adm"
    dry = genmix("convert", "adm", file, "--flags", flags, "--classes", "cyst,tumour", "--out", out, "--dry-run")
    assert dry.code == 0, dry.err
    assert "# " + str(out) + ": draws 3 x 8 x 8 images of cyst, tumour" in dry.out
    assert not out.exists()
    (tmp_path / "run.yaml").write_text(dry.out)
    done = genmix("convert", "adm", "--config", tmp_path / "run.yaml")
    assert done.code == 0, done.err
    assert (out / "config.json").is_file()


def test_an_upsampler_becomes_a_folder_of_diffusers(
    genmix: Genmix, adm_weights: tuple[Path, Path], tmp_path: Path
) -> None:
    from diffusers import UNet2DModel

    file, config = adm_weights
    weights = torch.load(file)
    weights["input_blocks.0.0.weight"] = torch.zeros(32, 6, 3, 3)
    torch.save(weights, file)
    config.write_text(json.dumps({**FLAGS, "small_size": 4}))
    outcome = genmix("convert", "adm", file, "--flags", config, "--out", tmp_path / "up")
    assert outcome.code == 0, outcome.err
    assert "an ADM upsampler, which UNet2DModel.from_pretrained opens" in outcome.out
    assert UNet2DModel.from_pretrained(tmp_path / "up").config["in_channels"] == 6


def test_what_is_no_adm(genmix: Genmix, adm_weights: tuple[Path, Path], weights: Path, tmp_path: Path) -> None:
    file, config = adm_weights
    for arguments, message in (
        ([weights], "expected a network of OpenAI's guided-diffusion"),
        ([file], "none of the published sizes"),
        ([file, "--flags", tmp_path / "none.json"], "none.json: no such file"),
        ([file, "--flags", config, "--classes", "a"], "weights of 2 classes, and 1 names (a)"),
    ):
        outcome = genmix("convert", "adm", *arguments, "--out", tmp_path / "run")
        assert outcome.code == 2
        assert message in outcome.err
        assert not (tmp_path / "run").exists()


@pytest.fixture
def embeddings(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A tiny Stable Diffusion, and embeddings for it: Gal's kind and diffusers'."""
    from tests.generators.textual_inversion.tiny_pipelines import WIDTH, save_stable_diffusion

    base = save_stable_diffusion(tmp_path / "tiny-stable-diffusion")
    random = torch.Generator().manual_seed(1)
    gal, cat = tmp_path / "embeddings_gs-99.pt", tmp_path / "learned_embeds.bin"
    torch.save(
        {
            "string_to_token": {"*": torch.tensor(265)},
            "string_to_param": torch.nn.ParameterDict({"*": torch.randn(2, WIDTH, generator=random)}),
        },
        gal,
    )
    torch.save({"<cat-toy>": torch.randn(WIDTH, generator=random)}, cat)
    return base, gal, cat


def test_embeddings_and_what_they_propose(
    genmix: Genmix, embeddings: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genmix_transforms.generators.textual_inversion.embeddings_file import read_embeddings

    monkeypatch.chdir(tmp_path)
    base, gal, cat = embeddings
    arguments = [gal, cat, "--base", base, "--classes", "cyst,tumour", "--size", 16, "--channels", 1,
                 "--sampler", "fast", "--out", "runs/ti"]  # fmt: skip
    outcome = genmix("convert", "textual-inversion", *arguments)
    assert outcome.code == 0, outcome.err
    assert "embeddings_gs-99.pt: *, 2 vectors: class cyst" in outcome.out
    assert "learned_embeds.bin: <cat-toy>, 1 vector: class tumour" in outcome.out
    assert "draws 1 x 16 x 16 images of cyst, tumour" in outcome.out
    assert torch.equal(read_embeddings("runs/ti/tumour")["<tumour>"][0], torch.load(cat)["<cat-toy>"])
    assert genmix("-q", "fill", "runs/ti", "--counts", "tumour=2", "--out", "banks/ti").code == 0
    assert SyntheticBank.load("banks/ti").class_counts == {"cyst": 0, "tumour": 2}
    outcome = genmix("convert", "textual-inversion", *arguments)
    assert outcome.code == 2
    assert "holds a generator already" in outcome.err
    assert genmix("convert", "textual-inversion", *arguments, "--overwrite").code == 0


def test_what_is_no_embedding(
    genmix: Genmix, embeddings: tuple[Path, Path, Path], weights: Path, tmp_path: Path
) -> None:
    base, gal, cat = embeddings
    for arguments, message in (
        ([weights, "--classes", "a"], "expected learned embeddings"),
        ([tmp_path / "none.pt", "--classes", "a"], "none.pt: no such file"),
        ([gal, cat, "--classes", "a"], "2 files of embeddings and 1 class names (a)"),
        ([gal, "--classes", "a", "--base", tmp_path / "none"], "no such folder"),
        ([gal, "--classes", "a", "--sampler", "quick"], "must be one of paper, fast"),
        ([gal, "--classes", "a", "--base", base, "--size", 0], "resolution must be a whole number"),
        ([gal, "--classes", "a", "--base", base, "--prompt", "a cyst"], "a template needs exactly one {}"),
    ):
        outcome = genmix("convert", "textual-inversion", *arguments, "--out", tmp_path / "run")
        assert outcome.code == 2
        assert message in outcome.err
        assert not (tmp_path / "run").exists()
