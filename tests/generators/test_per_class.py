"""One generator for each class."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from genmix_transforms.data.identity import find_recorded
from genmix_transforms.data.patches import PatchDataset
from genmix_transforms.errors import InputError, OverwriteError
from genmix_transforms.generators import DCGAN, PerClass, fill_bank, load_generator
from genmix_transforms.generators.dcgan.network import initialise

Patches = Callable[..., PatchDataset]


def make() -> PerClass:
    generator = PerClass.of(DCGAN, classes=["cyst", "metastasis"], resolution=16, base_width=4, latent_size=8)
    for seed, member in enumerate(generator.members):
        initialise(member.network, seed=seed)
    return generator


def test_each_label_is_drawn_by_its_own_network() -> None:
    generator = make()
    images = generator.sample([1, 0, 1], [5, 6, 7])
    one, two = generator.members
    assert torch.equal(images[1], one.sample([0], [6])[0])
    assert torch.equal(images[[0, 2]], two.sample([0, 0], [5, 7]))
    assert len(list(generator.network.children())) == 2


def test_every_member_learns_from_its_class_alone(tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        generator = make().fit(patches, out=tmp_path, steps=3, batch_size=4, progress=False, device="cpu")
        alone = DCGAN(classes=["metastasis"], resolution=16, base_width=4, latent_size=8)
        alone.fit(
            patches.of_class("metastasis"), out=tmp_path / "alone", steps=3, batch_size=4, progress=False, device="cpu"
        )
    assert generator.members[1].weights_hash == alone.weights_hash
    loaded = load_generator(tmp_path)
    assert loaded.classes == ("cyst", "metastasis")
    assert loaded.weights_hash == generator.weights_hash
    bank = fill_bank(loaded, out=tmp_path / "bank", progress=False)
    assert bank.class_counts == patches.class_counts  # as many as each member learned from
    # The evaluation compares this with the training part it is given.
    assert bank.provenance["training_set"] == patches.training_set()


def test_saved_and_loaded(tmp_path: Path) -> None:
    generator = make()
    generator.save_pretrained(tmp_path / "run")
    loaded = load_generator(tmp_path / "run")
    assert isinstance(loaded, PerClass)
    assert torch.equal(loaded.sample([0, 1], [1, 1]), generator.sample([0, 1], [1, 1]))
    with pytest.raises(OverwriteError, match="holds a generator already"):
        generator.save_pretrained(tmp_path / "run")


def test_a_run_of_another_kind_is_not_touched(tiny_patches: Patches, tmp_path: Path) -> None:
    patches = tiny_patches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        DCGAN(classes=patches.classes, resolution=16, base_width=4).fit(
            patches, out=tmp_path, steps=1, batch_size=4, progress=False, device="cpu"
        )
        with pytest.raises(OverwriteError, match="holds a different kind of generator; choose another folder"):
            make().fit(patches, out=tmp_path, steps=1, batch_size=4, progress=False, device="cpu")
    assert isinstance(load_generator(tmp_path), DCGAN)


def test_few_images_are_said_once(tiny_patches: Patches, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make().fit(tiny_patches(), out=tmp_path, steps=1, batch_size=4, progress=False, device="cpu")
    assert [str(warning.message)[:15] for warning in caught] == ["very few images"]


def test_members_stay_within_the_folder(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "run")
    make().members[0].save_pretrained(tmp_path / "elsewhere")
    config = json.loads((tmp_path / "run/config.json").read_text())
    config["config"]["members"][0] = "../elsewhere"
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="names a member outside the folder: '../elsewhere'"):
        load_generator(tmp_path / "run")


def test_an_unfinished_training_is_not_a_generator_yet(tmp_path: Path) -> None:
    make().members[0].save_pretrained(tmp_path / "classes/000")
    with pytest.raises(InputError, match="one whose training has not reached its first checkpoint"):
        load_generator(tmp_path)


def test_members_that_do_not_go_together() -> None:
    def one(name: str, **options: int) -> DCGAN:
        return DCGAN(classes=[name], base_width=4, **{"resolution": 16, **options})

    for members, message in (
        ([], "expected a generator for each class, got none"),
        ([DCGAN(classes=["a", "b"], resolution=16, base_width=4)], "every member has one class, got one with a, b"),
        ([one("a"), one("a")], "every class has one member, got a, a"),
        ([one("a"), one("b", resolution=32)], "members must draw images of one shape and type"),
        ([one("a"), one("b", bits=16)], "members must draw images of one shape and type"),
    ):
        with pytest.raises(InputError, match=message):
            PerClass(members)


def test_other_data_is_refused(tiny_patches: Patches, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="made for the classes cyst, metastasis, the data has a, b"):
        make().fit(tiny_patches(classes=("a", "b")), out=tmp_path)


def test_what_the_weights_of_its_members_had_seen_is_kept(tiny_patches: Patches, tmp_path: Path) -> None:
    few, pool = tiny_patches(8), tiny_patches(40).subset(torch.arange(8, 40)).without_labels()
    options = {"steps": 1, "batch_size": 4, "device": "cpu", "progress": False}
    DCGAN.for_patches(pool, base_width=4).fit(pool, out=tmp_path / "pool", **options)
    members = [DCGAN.adapted_to(tmp_path / "pool", few.of_class(name)) for name in few.classes]
    generator = PerClass(members).fit(few, out=tmp_path / "run", warm_start=True, **options)
    record = generator.provenance["training_set"]
    assert record["class_counts"] == few.class_counts
    for seen in (pool, few):
        found = find_recorded(seen.origins, record)
        assert found is not None
        assert bool(found.all())
