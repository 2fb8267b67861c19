"""WebDataset shards are plain tar files: the bank's images, bit for bit, and nothing of the machine that wrote them."""

import json
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.bank.exporting import export_webdataset
from genmix_transforms.errors import InputError
from tests.bank.exporting.other_readers import KINDS, as_float32, decoded, facts_of, tar_samples


@pytest.mark.parametrize(("shape", "dtype"), KINDS)
def test_tar_shards_hold_the_bank(full_bank, tmp_path, shape, dtype):
    bank = full_bank(shape, dtype)
    export_webdataset(bank, tmp_path / "tar", images_per_shard=3)
    assert sorted(path.name for path in (tmp_path / "tar").glob("*.tar")) == ["000000.tar", "000001.tar", "000002.tar"]
    found = tar_samples(tmp_path / "tar")
    assert sorted(found) == [f"{row:08d}" for row in range(7)]
    for key, files in found.items():
        row = int(key)
        assert list(files) == ["png", "cls", "json"]
        assert torch.equal(decoded(files["png"]), bank.images[row])
        assert int(files["cls"]) == bank.labels[row]
        facts = as_float32(json.loads(files["json"]))
        assert facts == {"label": bank.classes[bank.labels[row]], **facts_of(bank, row)}


def test_the_headers_of_tar_shards_hold_no_time_and_no_user(full_bank, tmp_path):
    export_webdataset(full_bank(), tmp_path / "tar")
    with tarfile.open(tmp_path / "tar/000000.tar") as shard:
        members = shard.getmembers()
    assert len(members) == 21
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert (member.mode, member.isreg(), member.pax_headers) == (0o644, True, {})


@pytest.mark.parametrize("per_shard", [1, 2, 7, 100])
def test_shards_are_full_but_the_last(full_bank, tmp_path, per_shard):
    export_webdataset(full_bank(), tmp_path / "tar", images_per_shard=per_shard)
    sizes = []
    for path in sorted((tmp_path / "tar").glob("*.tar")):
        with tarfile.open(path) as shard:
            sizes.append(len(shard.getnames()) // 3)
    assert sizes[:-1] == [per_shard] * (len(sizes) - 1)
    assert sum(sizes) == 7


def test_the_order_mixes_the_classes(make_bank, tmp_path):
    bank = make_bank([0] * 50 + [1] * 50)
    export_webdataset(bank, tmp_path / "tar", images_per_shard=20)
    for path in (tmp_path / "tar").glob("*.tar"):
        with tarfile.open(path) as shard:
            labels = {shard.extractfile(name).read() for name in shard.getnames() if name.endswith(".cls")}
        assert labels == {b"0", b"1"}
    export_webdataset(bank, tmp_path / "own", seed=None)
    assert list(tar_samples(tmp_path / "own")) == [f"{row:08d}" for row in range(100)]


def test_the_webdataset_library_reads_it(full_bank, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    bank = full_bank((3, 5, 4))
    export_webdataset(bank, tmp_path / "tar", images_per_shard=4)
    urls = [str(path) for path in sorted((tmp_path / "tar").glob("*.tar"))]
    read = list(
        webdataset.WebDataset(urls, shardshuffle=False).decode("torchrgb8").to_tuple("__key__", "png", "cls", "json")
    )
    assert sorted(key for key, *_ in read) == [f"{row:08d}" for row in range(7)]
    for key, image, label, facts in read:
        assert torch.equal(image, bank.images[int(key)])
        assert label == bank.labels[int(key)]
        assert facts["seed"] == bank.seeds[int(key)]


@pytest.mark.parametrize("number", [0, -1, 2.5, True])
def test_a_number_of_images_that_makes_no_shard(full_bank, tmp_path, number):
    with pytest.raises(InputError, match="images_per_shard must be a whole number, at least 1"):
        export_webdataset(full_bank(), tmp_path / "tar", images_per_shard=number)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 12),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kind=st.sampled_from([(1, torch.uint8), (1, torch.uint16), (3, torch.uint8)]),
    seed=st.integers(0, 1000),
    distance=st.floats(0, width=32, allow_infinity=False),
)
def test_tar_shards_hold_any_bank(tmp_path_factory, pixels, count, size, kind, seed, distance):
    channels, dtype = kind
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 3, count))
    bank = SyntheticBank(
        pixels(count, (channels, *size), dtype, seed=seed),
        labels,
        classes=["é", "a.b", "c"],
        distance=torch.full((count,), distance),
    )
    folder = tmp_path_factory.mktemp("any") / "tar"
    export_webdataset(bank, folder, images_per_shard=5, seed=seed)
    found = tar_samples(folder)
    assert torch.equal(torch.stack([decoded(found[f"{row:08d}"]["png"]) for row in range(count)]), bank.images)
    assert [json.loads(found[f"{row:08d}"]["json"])["label"] for row in range(count)] == [
        bank.classes[label] for label in bank.labels
    ]
    assert all(np.float32(json.loads(files["json"])["distance"]) == np.float32(distance) for files in found.values())


def test_soft_labels_go_along(make_bank, tmp_path):
    bank = make_bank(torch.tensor([[0.1, 0.7, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.0, 1e-7, 1.0]]))
    export_webdataset(bank, tmp_path / "tar")
    for key, files in tar_samples(tmp_path / "tar").items():
        assert torch.equal(torch.tensor(json.loads(files["json"])["probabilities"]), bank.labels[int(key)])
        assert int(files["cls"]) == bank.labels[int(key)].argmax()
