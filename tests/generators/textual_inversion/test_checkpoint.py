"""Embeddings learned elsewhere as a generator: every kind of file, and what is refused before anything is opened."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genmix_transforms.errors import InputError, MissingPathError
from genmix_transforms.files.hashing import file_hash
from genmix_transforms.generators.textual_inversion import generator
from genmix_transforms.generators.textual_inversion.checkpoint import from_embeddings, one_file_a_class
from genmix_transforms.generators.textual_inversion.embeddings_file import save_embeddings
from genmix_transforms.generators.textual_inversion.generator import TextualInversion
from genmix_transforms.generators.textual_inversion.latent_diffusion import LatentDiffusion

FAST = {"steps": 3, "batch_size": 2}


def vectors(count: int, *, width: int = 16) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


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
    made = from_embeddings(
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
    made = from_embeddings({"cyst": files["cyst"]}, base=stable_diffusion_folder, sampler=FAST, resolution=16)
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
    for given, error, message in cases:
        with pytest.raises(error, match=message):
            from_embeddings(given, base="none")
    with pytest.raises(InputError, match="resolution must be a whole number"):
        from_embeddings({"cyst": files["cyst"]}, base=stable_diffusion_folder, resolution=0)


def test_embeddings_of_another_model(files: dict[str, Path], ldm: LatentDiffusion, tmp_path: Path) -> None:
    torch.save({"<a>": vectors(1, width=768)}, tmp_path / "sd.bin")
    with pytest.raises(InputError, match=r"sd.bin: vectors of 768 numbers, and the base model's word vectors have 16"):
        from_embeddings({"cyst": tmp_path / "sd.bin"}, base=ldm)
    torch.save({"<a>": vectors(80)}, tmp_path / "many.bin")
    with pytest.raises(InputError, match="the text encoder reads 77"):
        from_embeddings({"cyst": tmp_path / "many.bin"}, base=ldm)


def test_one_file_a_class() -> None:
    assert one_file_a_class(["a", "b"], ["cyst", "normal"]) == {"cyst": "a", "normal": "b"}
    with pytest.raises(InputError, match="2 files of embeddings and 1 class names \\(cyst\\): one file is one class"):
        one_file_a_class(["a", "b"], ["cyst"])
    with pytest.raises(InputError, match="classes must be different names"):
        one_file_a_class(["a", "b"], ["cyst", "cyst"])
