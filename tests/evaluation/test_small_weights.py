"""Files of weights for the small classifier: what is written is read, and what is no such file is refused."""

import pytest
import torch

from genmix_transforms.errors import CorruptFileError, InputError, MissingPathError
from genmix_transforms.evaluation.classifiers import SmallClassifier, build_classifier
from genmix_transforms.evaluation.small_weights import SmallWeights
from genmix_transforms.files.atomic import write_tensors


def layers(channels=1, seed=5):
    torch.manual_seed(seed)
    state = SmallClassifier(channels=channels, classes=2).state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith("17.")}


def weights(**changes):
    facts = {
        "tensors": layers(),
        "shape": (1, 16, 16),
        "mean": (0.25,),
        "std": (0.5,),
        "training_set": {"fingerprint": "ab", "images": ""},
        "made": {"method": "SimCLR", "steps": 3},
    }
    return SmallWeights(**{**facts, **changes})


def build(file, *, channels=1, size=16, **options):
    options = {"classes": 3, "seed": 0, **options}
    return build_classifier("small", channels=channels, size=(size, size), weights=str(file), **options)


def test_what_is_written_is_read(tmp_path):
    weights().save(tmp_path / "w.safetensors")
    found = SmallWeights.load(tmp_path / "w.safetensors")
    assert all(torch.equal(tensor, found.tensors[name]) for name, tensor in layers().items())
    facts = [(one.shape, one.mean, one.std, one.training_set, one.made) for one in (weights(), found)]
    assert facts[0] == facts[1]


def test_the_classifier_has_all_but_a_last_layer_of_its_own(tmp_path):
    file = tmp_path / "w.safetensors"
    weights().save(file)
    one, other = build(file), build(file, seed=1)
    # Values in [0, 1] are standardised as the pool was.
    images = torch.rand(4, 1, 16, 16)
    alone = SmallClassifier(channels=1, classes=3)
    alone.load_state_dict({**alone.state_dict(), **layers()})
    below, expected = (list(network.eval().children())[:-1] for network in (one.network, alone))
    mine, theirs = (torch.nn.Sequential(*part) for part in (below, expected))
    assert torch.equal(mine((images - one.mean) / one.std), theirs((images - 0.25) / 0.5))
    assert one(images).shape == (4, 3)
    assert not torch.equal(one.network[-1].weight, other.network[-1].weight)
    # As one from scratch, it goes on learning what batches look like.
    assert all(norm.training for norm in one.train().modules() if isinstance(norm, torch.nn.BatchNorm2d))


def test_images_of_another_size_or_channel_count(tmp_path):
    file = tmp_path / "w.safetensors"
    weights().save(file)
    with pytest.raises(InputError, match=r"images of 1 x 16 x 16 .*, the classifier would see 1 x 32 x 32"):
        build(file, size=32)
    with pytest.raises(InputError, match="the classifier would see 3 x 16 x 16: bring both to one size"):
        build(file, channels=3)
    assert build(file, size=20, input_size=16)(torch.rand(2, 1, 20, 20)).shape == (2, 3)


def test_files_that_are_none(tmp_path):
    other = tmp_path / "other.safetensors"
    write_tensors(other, layers())
    (tmp_path / "w.pth").write_bytes(b"PK")
    for file in (other, tmp_path / "w.pth"):
        with pytest.raises(InputError, match="no weights of the classifier 'small'; genmix pretrain-classifier POOL"):
            build(file)
    with pytest.raises(MissingPathError, match="no such file"):
        build(tmp_path / "none.safetensors")
    short = weights(tensors={"0.weight": torch.zeros(1, 2, 3, 3)})
    short.save(tmp_path / "short.safetensors")
    with pytest.raises(InputError, match="not the layers of the classifier 'small'"):
        build(tmp_path / "short.safetensors")
    weights().save(other)
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    with pytest.raises(CorruptFileError, match="damaged"):
        build(other)
