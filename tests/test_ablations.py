"""The benchmarks that ask why: each changes the one thing it names, and how far a bank is from real patches is told."""

import json
import sys

import numpy as np
import pytest
import torch

from genmix_transforms import SyntheticBank
from genmix_transforms.data import LesionPhantom, PatchDataset
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation import Protocol, Recipe
from genmix_transforms.evaluation.arms import Setting, build_arm
from genmix_transforms.evaluation.normalisation import Normalisation

NAMES = ("timing", "table1_generators", "table1_data", "table1", "adm_quality", "ablations", "bank_quality")
CLASSES = ("dark", "bright")


@pytest.fixture
def scripts(load_benchmarks):
    """The benchmarks as modules; the arms that they add to the package's are gone afterwards."""
    return load_benchmarks(*NAMES)


@pytest.fixture
def setting():
    """Real images are 0 throughout, those of the bank 255: what is mixed is seen in the values."""
    images = torch.full((20, 1, 4, 4), 255, dtype=torch.uint8)
    bank = SyntheticBank(images, torch.arange(20) % 2, classes=CLASSES)
    return Setting(
        protocol=Protocol(steps=6),
        class_counts={"dark": 5, "bright": 5},
        normalisation=Normalisation(mean=(0.0,), std=(1.0,)),
        banks={"dcgan": bank},
    )


def shares(arm, calls=1, labels=None):
    """The synthetic share of each image of so many batches of zeros: ``(calls, N)``."""
    labels = torch.arange(64) % 2 if labels is None else labels
    torch.manual_seed(0)
    return torch.stack([arm(torch.zeros(64, 1, 4, 4), labels)[0][:, 0, 0, 0] for _ in range(calls)])


def test_a_schedule_mixes_in_its_half_of_the_steps(scripts, setting):
    scripts["ablations"].register(("schedule",))
    first = shares(build_arm("genmix-first-half:dcgan", setting), calls=6).amax(dim=1)
    assert (first > 0).tolist() == [True] * 3 + [False] * 3
    second = shares(build_arm("genmix-second-half:dcgan", setting), calls=6).amax(dim=1)
    assert (second > 0).tolist() == [False] * 3 + [True] * 3


def test_a_schedule_needs_steps(scripts, setting):
    scripts["ablations"].register(("schedule",))
    epochs = Setting(
        protocol=Protocol(epochs=2),
        class_counts=setting.class_counts,
        normalisation=setting.normalisation,
        banks=setting.banks,
    )
    with pytest.raises(InputError, match="must count steps, not epochs"):
        build_arm("genmix-first-half:dcgan", epochs)


def test_each_arm_has_the_option_of_its_name(scripts, setting):
    names = scripts["ablations"].register(tuple(scripts["ablations"].GROUPS))
    assert len(names) == len(set(names)) == 11
    # Of Beta(alpha, 1) the mean is alpha / (1 + alpha); 6400 draws, deviations of at most 0.3.
    for name, mean in (("genmix-alpha-0.1", 0.1 / 1.1), ("genmix-alpha-1", 0.5)):
        assert shares(build_arm(f"{name}:dcgan", setting), calls=100).mean().item() == pytest.approx(mean, abs=0.012)
    assert shares(build_arm("genmix-pool-1:dcgan", setting)).max() == 0
    untouched = (shares(build_arm("genmix-p-0.5:dcgan", setting), calls=20) == 0).float().mean().item()
    # Beta(0.3, 1) itself gives shares that round to nothing: 1e-38 to the power of 0.3 is next to 0.
    assert untouched == pytest.approx(0.5, abs=0.05)
    labels = torch.zeros(64, dtype=torch.int64)
    for name, own in (("genmix-same", 1.0), ("genmix-other", 0.0)):
        soft = build_arm(f"{name}:dcgan", setting)(torch.zeros(64, 1, 4, 4), labels).labels
        assert bool((soft[:, 0] == 1).all()) is (own == 1)


def test_only_is_the_bank_alone(scripts, setting):
    assert scripts["ablations"].register(("only",)) == []
    assert shares(build_arm("only:dcgan", setting)).min() == 1


def test_an_eighth_of_a_bank(scripts):
    labels = torch.tensor([0] * 20 + [1] * 3)
    images = torch.arange(23, dtype=torch.uint8).view(23, 1, 1, 1).expand(23, 1, 4, 4).contiguous()
    part = scripts["ablations"].part_of(SyntheticBank(images, labels, classes=CLASSES, provenance=[{"made": "here"}]))
    assert part.class_counts == {"dark": 3, "bright": 1}
    assert sorted(part.images[:, 0, 0, 0].tolist()) == [0, 1, 2, 20]
    assert part.provenance == {"made": "here"}


def test_groups_by_name(scripts):
    chosen = scripts["ablations"].chosen_groups
    assert chosen(None) == ("alpha", "pairing", "pool", "p", "schedule", "size", "generator", "only", "plain")
    assert chosen("pool, only") == ("pool", "only")
    assert chosen("") == ()
    with pytest.raises(InputError, match="no ablation 'beta'; there are alpha, pairing"):
        chosen("beta")


def call(scripts, name, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    scripts[name].main()
    return capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:very few images")
def test_from_a_table_to_its_ablations(scripts, monkeypatch, capsys, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    images = rng.integers(0, 100, (80, 16, 16)) + 100 * labels[:, None, None]
    np.savez(tmp_path / "data.npz", images=images.astype(np.uint8), labels=labels, label_names=CLASSES)
    data = ["--data", tmp_path / "data.npz", "--preset", "trial", "--folds", 2]
    table, rest = tmp_path / "table", ["--device", "cpu", "--no-progress"]
    more = ["--table", table, "--bank", "dcgan", "--seeds", 1, "--only", "p,size,generator,only,plain", *rest]
    with pytest.raises(InputError, match="no bank for each of 2 folds: run table1.py"):
        scripts["bank_quality"].banks_of(table, 2)
    call(
        scripts,
        "table1",
        monkeypatch,
        capsys,
        *data,
        "--generators",
        "dcgan",
        "--only-generators",
        "--out",
        table,
        *rest,
    )
    printed = call(scripts, "ablations", monkeypatch, capsys, *data, *more)
    results = json.loads((table / "ablations-dcgan" / "results.json").read_text())
    assert results["order"] == [
        "baseline", "genmix-real", "genmix:dcgan", "mixup", "repeat", "blend:dcgan", "genmix-p-0.5:dcgan",
        "genmix:dcgan-early", "genmix:dcgan-untrained", "genmix:dcgan-eighth", "genmix:dcgan-fourfold",
        "only:dcgan", "only:dcgan-early", "only:dcgan-untrained",
    ]  # fmt: skip
    assert {run["knob"] for run in results["runs"]} == {None}
    counts = {name: sum(bank["counts"].values()) for name, bank in results["banks"].items()}
    assert counts["dcgan-fourfold"] == 4 * counts["dcgan"] == 4 * counts["dcgan-untrained"]
    assert counts["dcgan-eighth"] == 8  # of 15 or 16 of each class in each fold
    assert len({str(bank["content"]) for bank in results["banks"].values()}) == 5
    assert "Difference in F1 from genmix:dcgan, points:" in printed
    found = scripts["bank_quality"].banks_of(table / "ablations-dcgan", 2)
    assert {name: len(banks) for name, banks in found.items()} == {
        "dcgan-early": 2, "dcgan-fourfold": 2, "untrained": 2,
    }  # fmt: skip
    # The training of the table's own generator is not begun again, and nothing is trained twice.
    from genmix_transforms.evaluation import comparison

    monkeypatch.setattr(comparison, "train_and_test", lambda *args, **options: pytest.fail("trained again"))
    assert call(scripts, "ablations", monkeypatch, capsys, *data, *more, "--figures") == printed
    figure = (table / "ablations-dcgan" / "figures" / "forest.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
    assert len(figure) > 10_000

    with pytest.raises(InputError, match="adm: the paper's ADM is pre-trained"):
        call(scripts, "ablations", monkeypatch, capsys, *data, "--table", table, "--bank", "adm")


def test_quality_of_a_bank_of_real_images_and_of_one_of_noise(scripts):
    def patches(seed, count):
        generator = torch.Generator().manual_seed(seed)
        images = torch.randint(90, 130, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
        # By class, as a bank has them: KID draws its subsets by place.
        return PatchDataset(images=images, labels=torch.arange(count) * 2 // count, classes=CLASSES)

    train, val, test = (patches(seed, 60) for seed in range(3))
    noise = torch.randint(0, 256, (60, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    banks = {
        "copies": [SyntheticBank(train.images, train.labels, classes=CLASSES)],
        "noise": [SyntheticBank(noise, train.labels, classes=CLASSES)],
    }
    real, copies, other = scripts["bank_quality"].rows(
        [(train, val, test)],
        banks,
        features=lambda images: images.flatten(1).double() / 100,
        subsets=10,
        subset_size=30,
    )
    assert copies[:3] == ["copies", "60", real[2]]  # the same images are as far away
    assert copies[3] == "100.0"
    assert float(other[3]) < 25  # noise is as far from noise as the real patches, which are noise too, from each other
    assert float(other[2].split(" ± ")[0]) > 10 * abs(float(real[2].split(" ± ")[0]))


def test_generators_draw_on_the_device_that_was_asked_for(scripts, monkeypatch, tmp_path):
    ablations, asked = scripts["ablations"], []
    train = LesionPhantom(size=16, train=(4, 4, 4), val=(1, 1, 1), test=(1, 1, 1)).dataset().split()[0]
    bank = SyntheticBank(train.images, train.labels, classes=train.classes)
    meta = torch.device("meta")

    def load_generator(folder, *, device="cpu"):
        asked.append(torch.device(device))

    def fill_bank(generator, **options):
        if generator is not None:
            asked.append(generator.device)
        return bank

    monkeypatch.setattr(ablations, "load_generator", load_generator)
    monkeypatch.setattr(ablations, "fill_bank", fill_bank)
    ablations.other_sizes("dcgan", 0, bank, train, table=tmp_path, out=tmp_path, device=meta)
    ablations.noise(Recipe(kind="dcgan", network={"base_width": 4}), train, out=tmp_path / "noise", device=meta)
    assert asked == [meta, meta]
