"""The paper's own base model from the hub: some 6 GB, and minutes on a CPU. ``pytest -m hub`` runs this."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import MissingPathError
from genmix_transforms.generators import TextualInversion, load_generator
from genmix_transforms.generators.textual_inversion.base_model import find_base_model, open_base_model
from genmix_transforms.generators.textual_inversion.network import BaseSource
from genmix_transforms.generators.textual_inversion.settings import PAPER_MODEL

REVISION = "30de525ca11a880baea4962827fb6cb0bb268955"
"""The commit that other people's caches hold. Not checked against the hub from where this was written."""

NEW_PROCESS = """
import sys
from pathlib import Path
import torch
from genmix_transforms.generators import load_generator
torch.save(load_generator(sys.argv[1]).sample(labels=[1], seeds=[7]), Path(sys.argv[1]) / "again.pt")
"""


def skip_where_it_cannot_be_had(error: BaseException | None) -> None:
    """No network, or the hub is down. That there is no such model or commit is no reason to skip."""
    seen = []
    while error is not None:
        seen.append(error)
        error = error.__cause__ or error.__context__
    if any(isinstance(each, (RepositoryNotFoundError, RevisionNotFoundError)) for each in seen):
        return
    pytest.skip(f"{PAPER_MODEL} cannot be had here: {seen[0]}")


@pytest.fixture(scope="module")
def source() -> BaseSource:
    try:
        return find_base_model(PAPER_MODEL, revision=os.environ.get("GENMIX_TEST_LDM_REVISION", REVISION))
    except MissingPathError as error:
        skip_where_it_cannot_be_had(error)
        raise


class TestSkipping:
    """These run everywhere: a test that skips too readily would never say that the pin is wrong."""

    @pytest.mark.parametrize("cause", [OSError("no route"), LocalEntryNotFoundError("offline")])
    def test_no_network(self, cause: Exception) -> None:
        error = MissingPathError("not to be had")
        error.__cause__ = cause
        with pytest.raises(pytest.skip.Exception, match=f"{PAPER_MODEL} cannot be had here: not to be had"):
            skip_where_it_cannot_be_had(error)

    @pytest.mark.parametrize("kind", [RepositoryNotFoundError, RevisionNotFoundError])
    def test_no_such_commit_is_a_failure(self, kind: type[HfHubHTTPError]) -> None:
        error = MissingPathError("not to be had")
        error.__cause__ = OSError("diffusers says it otherwise")
        error.__cause__.__cause__ = kind.__new__(kind)
        skip_where_it_cannot_be_had(error)


@pytest.mark.hub
def test_the_papers_model(source: BaseSource, tmp_path: Path) -> None:
    model = open_base_model(source)
    assert (model.family, model.native_size, model.latent_shape, model.width) == ("ldm", 256, (4, 32, 32), 1280)
    counts = {
        name: sum(value.numel() for value in getattr(model, name).parameters())
        for name in ("unet", "text_encoder", "autoencoder")
    }
    assert {name: round(count / 1e6) for name, count in counts.items()} == {
        "unet": 872, "text_encoder": 582, "autoencoder": 84
    }  # fmt: skip
    hash_before = model.weights_hash

    torch.manual_seed(0)
    images, labels = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    patches = PatchDataset(images=images, labels=labels, classes=("cyst", "solid"))
    generator = TextualInversion(
        classes=patches.classes, base=model, resolution=64, vectors=2, modality="CT",
        sampler={"method": "dpmsolver++", "steps": 4, "batch_size": 1},
    )  # fmt: skip
    before = generator.embeddings
    generator.fit(patches, out=tmp_path / "run", steps=2, batch_size=4, progress=False, device="cpu")
    for name, rows in generator.embeddings.items():
        # Two steps of Adam move each number by some two learning rates, and nothing else of the model at all.
        assert 0 < (rows - before[name]).abs().max() <= 0.05
    model._hash = None
    assert model.weights_hash == hash_before

    drawn = generator.sample(labels=[1], seeds=[7])
    assert drawn.shape == (1, 1, 64, 64)
    assert drawn.float().std() > 10  # a picture of something: trained weights, and the right noise schedule
    again = load_generator(tmp_path / "run", base=model).with_sampler(**generator.sampler.to_json())
    assert torch.equal(again.sample(labels=[1], seeds=[7]), drawn)

    # In a new process, which finds the model by its name and commit.
    subprocess.run([sys.executable, "-c", NEW_PROCESS, tmp_path / "run"], check=True)
    assert torch.equal(torch.load(tmp_path / "run" / "again.pt", weights_only=True), drawn)
