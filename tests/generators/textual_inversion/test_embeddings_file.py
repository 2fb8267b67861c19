"""Files of embeddings: ours in diffusers, everybody's here, a generator of them; attacks, and files that are none."""

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.hashing import file_hash
from genmix_transforms.generators.randomness import noise
from genmix_transforms.generators.textual_inversion import generator
from genmix_transforms.generators.textual_inversion.embeddings_file import (
    find_embeddings,
    one_file_a_class,
    read_embeddings,
    save_embeddings,
)
from genmix_transforms.generators.textual_inversion.generator import TextualInversion
from genmix_transforms.generators.textual_inversion.network import LatentDiffusion
from genmix_transforms.generators.textual_inversion.sampling import draw_images
from genmix_transforms.generators.textual_inversion.settings import SamplerSettings
from genmix_transforms.generators.textual_inversion.tokens import PlaceholderTokens

WIDTH = 16


def vectors(count: int, *, seed: int = 0, width: int = WIDTH) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


# Ours


@given(st.integers(1, 5), st.integers(1, 9))
@settings(max_examples=10)
def test_what_is_saved_is_read(tmp_path_factory: pytest.TempPathFactory, count: int, width: int) -> None:
    folder = tmp_path_factory.mktemp("saved") / "cyst"
    saved = vectors(count, width=width)
    file = save_embeddings(folder, "<cyst>", saved)
    assert file == folder / "learned_embeds.safetensors" == find_embeddings(folder)
    for source in (folder, file):
        found = read_embeddings(source, width=width)
        assert list(found) == ["<cyst>"]
        assert torch.equal(found["<cyst>"], saved)
    with safetensors.safe_open(file, framework="pt") as content:
        assert list(content.keys()) == ["<cyst>"]  # with two keys, diffusers' loader raises


def test_a_file_by_another_name(tmp_path: Path) -> None:
    file = save_embeddings(tmp_path / "mine.safetensors", "<cyst>", vectors(2))
    assert file == tmp_path / "mine.safetensors"
    assert torch.equal(read_embeddings(file)["<cyst>"], vectors(2))
    again = save_embeddings(tmp_path / "again.safetensors", "<cyst>", vectors(2))
    assert again.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("token", "values", "message"),
    [
        ("<cyst>", torch.full((2, 4), torch.nan), "the vectors of <cyst> hold NaN or infinity"),
        ("<cyst>", torch.zeros(2, 3, 4), r"floating-point of shape \(V, D\), got torch.float32 of shape \(2, 3, 4\)"),
        ("<cyst>", torch.zeros(2, 4, dtype=torch.int64), "must be floating-point"),
        ("<cyst>", torch.zeros(0, 4), "must be floating-point"),
        (" ", torch.zeros(2, 4), "a token must be a text"),
    ],
)
def test_what_is_no_embedding_is_not_saved(tmp_path: Path, token: str, values: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        save_embeddings(tmp_path / "new", token, values)
    assert not (tmp_path / "new").exists()


# Diffusers


@pytest.fixture
def pipeline(stable_diffusion_folder: Path) -> Any:
    opened = StableDiffusionPipeline.from_pretrained(stable_diffusion_folder, safety_checker=None)
    opened.set_progress_bar_config(disable=True)
    return opened


@pytest.mark.parametrize("count", [1, 3])
def test_diffusers_opens_the_folder_and_draws_the_same(
    pipeline: Any, stable_diffusion: LatentDiffusion, tmp_path: Path, count: int
) -> None:
    """The prompt with the token gives the same context, and the pipeline the same image, as the rows do here."""
    rows = {"cyst": vectors(count, seed=1), "tumour": vectors(2, seed=2)}
    for name, values in rows.items():
        save_embeddings(tmp_path / name, f"<{name}>", values)
        pipeline.load_textual_inversion(tmp_path / name)
    tokens = PlaceholderTokens(stable_diffusion.tokenizer, {name: len(values) for name, values in rows.items()})
    prompts = [tokens.fill("ultrasound of {}, scan", name) for name in rows]
    with torch.no_grad():
        ours = stable_diffusion.encode_text(tokens.ids(prompts), rows=torch.cat(list(rows.values())))
        negative = stable_diffusion.encode_text(tokens.ids([""]))[0]
        # Diffusers puts in the tokens of the other vectors by itself.
        theirs, theirs_negative = pipeline.encode_prompt(
            [f"ultrasound of <{name}>, scan" for name in rows], "cpu", 1, True
        )  # fmt: skip
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert torch.allclose(negative, theirs_negative[0], atol=1e-6)
    assert (ours[0] - ours[1]).abs().max() > 0.1
    ((_, images),) = draw_images(
        stable_diffusion, contexts=ours, which=torch.tensor([0, 1]), negative=negative, seeds=torch.tensor([7, 8]),
        settings=SamplerSettings(steps=5, batch_size=2),
    )  # fmt: skip
    drawn = pipeline(
        [f"ultrasound of <{name}>, scan" for name in rows], num_inference_steps=5, guidance_scale=10.0,
        latents=noise([7, 8], stable_diffusion.latent_shape), output_type="pt",
    ).images  # fmt: skip
    assert torch.allclose((images / 2 + 0.5).clamp(0, 1), drawn, atol=1e-5)


def test_files_of_diffusers(tmp_path: Path) -> None:
    """What examples/textual_inversion/textual_inversion.py saves, with and without ``--save_as_full_pipeline``."""
    values = vectors(3)
    safetensors.torch.save_file({"<cat-toy>": values}, tmp_path / "learned_embeds.safetensors", {"format": "pt"})
    assert torch.equal(read_embeddings(tmp_path)["<cat-toy>"], values)
    (tmp_path / "old").mkdir()
    torch.save(  # one vector, as it was at first, in PyTorch's first format
        {"<cat-toy>": values[0]}, tmp_path / "old" / "learned_embeds.bin", _use_new_zipfile_serialization=False
    )
    assert torch.equal(read_embeddings(tmp_path / "old")["<cat-toy>"], values[:1])
    torch.save({"<cat-toy>": nn.Parameter(values.half())}, tmp_path / "half.bin")
    assert torch.equal(read_embeddings(tmp_path / "half.bin")["<cat-toy>"], values.half().float())


# Gal et al., AUTOMATIC1111


def gal(values: Tensor, token: str = "*") -> dict[str, Any]:
    """What the ``EmbeddingManager`` of rinongal/textual_inversion saves: the token's id, and the vectors."""
    return {
        "string_to_token": {token: torch.tensor(265)},
        "string_to_param": nn.ParameterDict({token: nn.Parameter(values)}),
    }


def test_files_of_gal(tmp_path: Path) -> None:
    torch.save(gal(vectors(2)), tmp_path / "embeddings_gs-6099.pt")
    found = read_embeddings(tmp_path / "embeddings_gs-6099.pt", width=WIDTH)
    assert list(found) == ["*"]
    assert torch.equal(found["*"], vectors(2))
    assert not found["*"].requires_grad


def test_files_of_gal_from_the_pytorch_of_then(tmp_path: Path) -> None:
    """PyTorch 1.7 kept no list of the keys, by which a ParameterDict of today answers for itself."""
    content = gal(vectors(2))
    state = vars(content["string_to_param"])
    for name in set(state) - {"training", "_parameters", "_buffers", "_modules"}:
        del state[name]
    state["_parameters"] = OrderedDict(state["_parameters"])
    torch.save(content, tmp_path / "old.pt")
    assert torch.equal(read_embeddings(tmp_path / "old.pt")["*"], vectors(2))


def test_the_parameter_dict_is_let_through_here_alone(tmp_path: Path) -> None:
    torch.save(gal(vectors(2)), tmp_path / "gal.pt")
    read_embeddings(tmp_path / "gal.pt")
    with pytest.raises(pickle.UnpicklingError, match="ParameterDict"):
        torch.load(tmp_path / "gal.pt", weights_only=True)


def test_files_of_automatic1111(tmp_path: Path) -> None:
    content = {
        "string_to_token": {"*": 265}, "string_to_param": {"*": vectors(4)}, "name": "cyst-style", "step": 4999,
        "sd_checkpoint": "a9263745", "sd_checkpoint_name": "v1-5-pruned",
    }  # fmt: skip
    torch.save(content, tmp_path / "cyst-style.pt")
    found = read_embeddings(tmp_path / "cyst-style.pt")
    assert list(found) == ["cyst-style"]
    assert torch.equal(found["cyst-style"], vectors(4))


# What is refused


class Hostile:
    """Unpickled, it makes a folder: harmless, and seen."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("where", ["alone", "beside", "within"])
@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_hostile_file_is_refused_and_runs_nothing(tmp_path: Path, where: str, plain_pickle: bool) -> None:
    trap = Hostile(tmp_path / "sprung")
    content: Any = trap
    if where == "beside":
        content = {"<cyst>": vectors(2), "extra": trap}
    if where == "within":
        content = gal(vectors(2))
        content["string_to_param"].__dict__["_parameters"]["*"] = trap
    file = tmp_path / "embeddings.pt"
    if plain_pickle:
        file.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, file)
    message = "not a file of PyTorch weights" if plain_pickle else "holds more than tensors.*nothing in it was run"
    with pytest.raises(InputError, match=f"embeddings.pt: {message}"):
        read_embeddings(file)
    assert not (tmp_path / "sprung").exists()


def test_a_parameter_dict_that_is_none(tmp_path: Path) -> None:
    """The one class that is let through, its inside filled with what no ParameterDict has."""
    for inside in (None, [1, 2], {"*": {"deep": 1}}, {3: vectors(1)}, {}):
        content = gal(vectors(1))
        content["string_to_param"].__dict__["_parameters"] = inside
        torch.save(content, tmp_path / "odd.pt")
        with pytest.raises(InputError, match=r"odd.pt: (expected learned embeddings|the vectors of|a token must be)"):
            read_embeddings(tmp_path / "odd.pt")


@pytest.mark.parametrize("name", ["embeddings.safetensors", "embeddings.pt"])
def test_files_cut_short(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name.endswith("pt"):
        torch.save(gal(vectors(64)), file)
    else:
        save_embeddings(file, "<cyst>", vectors(64))
    whole = file.read_bytes()
    for length in (0, 1, 7, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"{name}: not a"):
            read_embeddings(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"<cyst>": torch.full((2, WIDTH), torch.inf)}, "the vectors of <cyst> hold NaN or infinity"),
        ({"<cyst>": torch.zeros(2, 24)}, "of <cyst> have 24 numbers, and the base model's 16: they were learned for"),
        ({"<cyst>": torch.zeros(2, WIDTH, dtype=torch.int32)}, "must be floating-point of shape"),
        ({"conv.weight": torch.zeros(4, 4, 3, 3), "conv.bias": torch.zeros(4)}, "found conv.weight, conv.bias$"),
        ({"epoch": 3}, "expected learned embeddings .* found epoch"),
        ({}, "found nothing"),
        ([torch.zeros(2, WIDTH)], "found a list"),
        (torch.zeros(2, WIDTH), "found a Tensor"),
        ({"string_to_param": {"*": 7}, "name": "x"}, "the vectors of x must be floating-point.*got int"),
        ({"string_to_param": 7, "name": "x"}, "expected learned embeddings .* found string_to_param, name"),
        ({7: torch.zeros(2, WIDTH)}, "a token must be a text without spaces around it, got 7"),
    ],
)
def test_files_of_something_else(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "other.bin")
    with pytest.raises(InputError, match=rf"other.bin: .*{message}"):
        read_embeddings(tmp_path / "other.bin", width=WIDTH)


def test_not_a_file_of_pytorch(tmp_path: Path) -> None:
    (tmp_path / "notes.pt").write_text("learned on Monday")
    with pytest.raises(InputError, match=r"notes.pt: not a file of PyTorch weights"):
        read_embeddings(tmp_path / "notes.pt")
    with pytest.raises(MissingPathError, match=r"none.pt: no such file"):
        read_embeddings(tmp_path / "none.pt")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(MissingPathError, match="neither a learned_embeds.safetensors nor a learned_embeds.bin"):
        read_embeddings(tmp_path)


FAST = {"steps": 3, "batch_size": 2}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """One of each kind, of different numbers of vectors."""
    gal = {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": nn.ParameterDict({"*": vectors(2)})}
    torch.save(gal, tmp_path / "embeddings_gs-99.pt")
    torch.save({"<cat-toy>": vectors(1)[0]}, tmp_path / "learned_embeds.bin")
    automatic = {"name": "style", "string_to_token": {"*": 265}, "string_to_param": {"*": vectors(4)}}
    torch.save(automatic, tmp_path / "style.pt")
    save_embeddings(tmp_path / "ours", "<tumour>", vectors(3))
    return {
        "cyst": tmp_path / "embeddings_gs-99.pt", "normal": tmp_path / "learned_embeds.bin",
        "artefact": tmp_path / "style.pt", "tumour": tmp_path / "ours",
    }  # fmt: skip


def test_a_generator_of_every_kind_of_file(files: dict[str, Path], ldm: LatentDiffusion, tmp_path: Path) -> None:
    made = TextualInversion.from_embeddings(
        files, base=ldm, resolution=16, channels=3, prompt="ultrasound of {}", sampler=FAST
    )  # fmt: skip
    assert made.classes == ("cyst", "normal", "artefact", "tumour")
    assert made.vectors == {"cyst": 2, "normal": 1, "artefact": 4, "tumour": 3}
    for name, count in made.vectors.items():
        assert torch.equal(made.embeddings[name], vectors(count))
    images = made.sample([0, 1, 2, 3], [5] * 4)
    assert images.shape == (4, 3, 16, 16)
    assert len({int(image.sum()) for image in images}) == 4
    assert made.provenance["tokens"] == {
        "cyst": "*", "normal": "<cat-toy>", "artefact": "style", "tumour": "<tumour>"
    }  # fmt: skip
    assert made.provenance["files"]["normal"] == f"sha256:{file_hash(files['normal'])}"
    assert str(tmp_path) not in str(made.provenance)
    made.save_pretrained(tmp_path / "run")
    again = TextualInversion.from_pretrained(tmp_path / "run", base=ldm)
    assert torch.equal(again.sample([0, 1, 2, 3], [5] * 4), images)
    assert again.provenance == made.provenance


def test_the_base_model_may_be_a_folder(files: dict[str, Path], stable_diffusion_folder: Path) -> None:
    made = TextualInversion.from_embeddings(
        {"cyst": files["cyst"]}, base=stable_diffusion_folder, sampler=FAST, resolution=16
    )
    assert made.sample([0], [1]).shape == (1, 1, 16, 16)


@pytest.fixture
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a base model takes long: what is wrong with the files must be found before."""

    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("the base model was looked for")

    monkeypatch.setattr(generator, "open_base_model", opened)


@pytest.mark.usefixtures("no_base")
def test_what_cannot_be_taken(files: dict[str, Path], stable_diffusion_folder: Path, tmp_path: Path) -> None:
    torch.save({"<a>": vectors(1), "<b>": vectors(1)}, tmp_path / "two.bin")
    torch.save({"<a>": vectors(1, width=8)}, tmp_path / "narrow.bin")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    cases: list[tuple[Any, type[Exception], str]] = [
        ({"cyst": tmp_path / "two.bin"}, InputError, r"two.bin: holds 2 tokens \(<a>, <b>\), and one file is"),
        (
            {**files, "more": tmp_path / "narrow.bin"}, InputError,
            r"narrow.bin: vectors of 8 numbers, and those of cyst have 16: they were learned for different base models",
        ),
        ({"cyst": tmp_path / "other.pt"}, InputError, "other.pt: expected learned embeddings"),
        ({"cyst": tmp_path / "none.pt"}, MissingPathError, "none.pt: no such file"),
        ({}, InputError, "expected files for the classes"),
        ([tmp_path / "two.bin"], InputError, "expected files for the classes"),
        ({"cyst": files["cyst"], "Cyst": files["cyst"]}, InputError, "would have the same token, <cyst>"),
        ({"cyst": files["cyst"]}, MissingPathError, "base model none: no such folder"),
    ]  # fmt: skip
    for wrong, error, message in cases:
        with pytest.raises(error, match=message):
            TextualInversion.from_embeddings(wrong, base="none")
    with pytest.raises(InputError, match="resolution must be a whole number"):
        TextualInversion.from_embeddings({"cyst": files["cyst"]}, base=stable_diffusion_folder, resolution=0)


def test_embeddings_of_another_model(files: dict[str, Path], ldm: LatentDiffusion, tmp_path: Path) -> None:
    torch.save({"<a>": vectors(1, width=768)}, tmp_path / "sd.bin")
    with pytest.raises(
        InputError, match=r"of .cyst. are of shape \(1, 768\); the base model tiny-ldm has .* of width 16"
    ):
        TextualInversion.from_embeddings({"cyst": tmp_path / "sd.bin"}, base=ldm)
    torch.save({"<a>": vectors(80)}, tmp_path / "many.bin")
    with pytest.raises(InputError, match="vectors of cyst must be a whole number, from 1 to 75, got 80"):
        TextualInversion.from_embeddings({"cyst": tmp_path / "many.bin"}, base=ldm)


def test_one_file_a_class() -> None:
    assert one_file_a_class(["a", "b"], ["cyst", "normal"]) == {"cyst": "a", "normal": "b"}
    with pytest.raises(InputError, match="2 files of embeddings and 1 class names \\(cyst\\): one file is one class"):
        one_file_a_class(["a", "b"], ["cyst"])
    with pytest.raises(InputError, match="classes must be different names"):
        one_file_a_class(["a", "b"], ["cyst", "cyst"])
