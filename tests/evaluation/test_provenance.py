"""What results say of where they come from."""

import pytest
import torch

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.data.identity import join_training_sets
from genmix_transforms.evaluation.checks import prepare
from genmix_transforms.evaluation.protocol import Protocol
from genmix_transforms.evaluation.provenance import content_hash, describe_bank, describe_data, describe_protocol


def test_a_hash_of_a_banks_content():
    images, labels = torch.arange(8, dtype=torch.uint8).view(2, 1, 2, 2), torch.tensor([0, 1])
    bank = SyntheticBank(images, labels, classes=["a", "b"])
    found = content_hash(bank)
    assert found == content_hash(SyntheticBank(images, labels, classes=["a", "b"], provenance={"x": 1}))
    for other in (
        SyntheticBank(images.flip(0), labels, classes=["a", "b"]),
        SyntheticBank(images, 1 - labels, classes=["a", "b"]),
        SyntheticBank(images, labels, classes=["b", "a"]),
        SyntheticBank(images.view(2, 1, 4, 1), labels, classes=["a", "b"]),
    ):
        assert content_hash(other) != found


def test_a_file_of_weights_is_told_by_its_content_not_its_path(tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(b"abc")
    told = describe_protocol(Protocol(weights=file))["weights"]
    assert told == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    file.write_bytes(b"abcd")
    assert describe_protocol(Protocol(weights=file))["weights"] != told
    assert describe_protocol(Protocol())["weights"] is None
    assert describe_protocol(Protocol(weights="imagenet"))["weights"] == "imagenet"


def test_one_split_and_folds(shapes, splits):
    setting = prepare(("baseline",), splits, {}, Protocol(), device=torch.device("cpu"))
    one = describe_data([splits], setting)
    assert one["counts"]["train"] == {"cyst": 30, "hemangioma": 30, "metastasis": 30}
    assert one["fingerprints"]["test"] == splits[2].fingerprint
    assert len(one["normalisation"]["mean"]) == 1
    folds = shapes.patches(60, name="set.npz").folds(3)
    several = describe_data(folds, setting)
    assert several["name"] == "set.npz"
    # Every image is tested once: the counts are the whole set's.
    assert several["counts"] == {"3 folds": {"cyst": 20, "hemangioma": 20, "metastasis": 20}}
    assert [entry["train"] for entry in several["fingerprints"]] == [train.fingerprint for train, *_ in folds]


@pytest.mark.parametrize(
    ("recorded", "told"), [(True, "each fold's training set"), (False, "another set"), (None, "not recorded")]
)
def test_the_banks_of_folds(shapes, recorded, told):
    folds = shapes.patches(60).folds(2)
    provenance = {True: [train.fingerprint for train, *_ in folds], False: ["0"] * 2, None: [None] * 2}[recorded]
    banks = [
        shapes.bank(seed=number, provenance={} if print_ is None else {"training_set": {"fingerprint": print_}})
        for number, print_ in enumerate(provenance)
    ]
    facts = describe_bank(banks, [train for train, *_ in folds])
    assert facts["trained_on"] == told
    assert facts["counts"] == {"cyst": 40, "hemangioma": 40, "metastasis": 40}
    assert facts["content"] == [content_hash(bank) for bank in banks]


def test_a_bank_whose_generator_saw_a_pool_first(shapes):
    train, _, test = shapes.patches(60).split()
    record = join_training_sets(test.without_labels().training_set(), train.training_set())
    facts = describe_bank([shapes.bank(provenance={"training_set": record})], [train])
    assert facts["trained_on"] == "this training set and other images"
