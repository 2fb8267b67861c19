"""The protocol: its ranges, and that it is plain data."""

import json

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.protocol import Protocol


def test_the_papers_values_are_the_defaults_where_it_gives_any():
    protocol = Protocol()
    assert (protocol.alpha, protocol.pairing, protocol.real_partner, protocol.p) == (0.3, "any", 0.0, 1.0)
    assert protocol.blend_share == 0.5
    assert protocol.patience is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "steps must be a whole number, at least 1, got 0"),
        ("steps", 10.5, "steps must be a whole number"),
        ("steps", True, "steps must be a whole number"),
        ("batch_size", 1, "batch_size must be a whole number, at least 2, got 1"),
        ("validate_every", -1, "validate_every must be"),
        ("patience", 0, "patience must be a whole number, at least 1, got 0"),
        ("learning_rate", 0, "learning_rate must be positive, got 0"),
        ("learning_rate", "fast", "learning_rate must be a number, got 'fast'"),
        ("learning_rate", float("nan"), "learning_rate must be positive"),
        ("learning_rate", float("inf"), "learning_rate must be positive"),
        ("epochs", 0, "epochs must be a whole number, at least 1, got 0"),
        ("input_size", 8, "input_size must be a whole number, at least 16, got 8"),
        ("head_factor", 0, "head_factor must be positive"),
        ("clip_norm", 0, "clip_norm must be a positive number or None, got 0"),
        ("clip_norm", float("nan"), "clip_norm must be a positive number or None, got nan"),
        ("clip_norm", "1", "clip_norm must be a positive number or None, got '1'"),
        ("warmup", 1.5, "warmup must be from 0 to 1, got 1.5"),
        ("schedule", "linear", "schedule must be one of cosine, constant, got 'linear'"),
        ("precision", "float16", "precision must be one of float32, bf16, got 'float16'"),
        ("tune", 1, "tune must be 0 .* or at least 2 values to choose from, got 1"),
        ("tune", 6, "tune must be a whole number, from 0 to 5, got 6"),
        ("augmix_severity", 11, "augmix_severity must be a whole number, from 1 to 10, got 11"),
        ("augmix_severity", 2.5, "augmix_severity must be a whole number"),
        ("classical_strength", 0, "classical_strength must be above 0 and at most 1, got 0"),
        ("repeat_share", 0, "repeat_share must be above 0 and at most 1, got 0.*baseline"),
        ("weight_decay", -0.1, "weight_decay must not be negative, got -0.1"),
        ("mixup_alpha", 0.0, "mixup_alpha must be positive"),
        ("alpha", -1, "alpha must be positive, got -1"),
        ("blend_share", 0, "blend_share must be above 0 and at most 1, got 0.*baseline"),
        ("blend_share", 1.5, "blend_share must be above 0 and at most 1, got 1.5"),
        ("blend_share", float("nan"), "blend_share must be"),
        ("real_partner", 1.1, "real_partner must be from 0 to 1, got 1.1"),
        ("p", -0.1, "p must be from 0 to 1, got -0.1"),
        ("pairing", 3, "pairing must be a name or a matrix of numbers, got 3"),
        ("pairing", [1, 2], "pairing must be a name or a matrix of numbers"),
        ("pairing", [["a", "b"]], "pairing must be a name or a matrix of numbers"),
    ],
)
def test_values_out_of_range(field, value, message):
    with pytest.raises(InputError, match=message):
        Protocol(**{field: value})


def test_epochs_become_steps_of_the_real_training_set():
    protocol = Protocol(epochs=3, batch_size=8, steps=17)
    assert protocol.for_training_set(17) == Protocol(epochs=None, batch_size=8, steps=9, validate_every=3)
    assert Protocol(steps=17).for_training_set(1000) == Protocol(steps=17)


def test_a_path_to_weights_is_plain_data(tmp_path):
    assert Protocol(weights=tmp_path / "w.pth").weights == str(tmp_path / "w.pth")


def test_a_pairing_matrix_becomes_plain_numbers():
    matrix = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    protocol = Protocol(pairing=matrix)
    matrix.zero_()
    assert protocol.pairing == ((0.5, 0.5), (1.0, 0.0))
    assert protocol == Protocol(pairing=[[0.5, 0.5], [1, 0]])
    assert hash(protocol) == hash(Protocol(pairing=[[0.5, 0.5], [1, 0]]))


@pytest.mark.parametrize("protocol", [Protocol(steps=3, patience=2, flips=True), Protocol(pairing=[[1.0]])])
def test_it_survives_json(protocol):
    assert Protocol(**json.loads(json.dumps(protocol.to_dict()))) == protocol
