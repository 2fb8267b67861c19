"""The protocol: its ranges, and that it is plain data."""

import json
from pathlib import Path

import pytest
import torch

from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.protocol import Protocol, preset


def test_the_papers_values_are_the_defaults_where_it_gives_any():
    protocol = Protocol()
    assert (protocol.alpha, protocol.pairing, protocol.real_partner, protocol.p) == (0.3, "any", 0.0, 1.0)
    assert protocol.blend_share == 0.5
    assert protocol.patience is None


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", 0, "steps must be a whole number, from 1 to 1000000000, got 0"),
        ("steps", 10.5, "steps must be a whole number"),
        ("steps", True, "steps must be a whole number"),
        ("batch_size", 1, "batch_size must be a whole number, from 2 to 65536, got 1"),
        ("batch_size", 10**9, "batch_size must be a whole number, from 2 to 65536, got 1000000000"),
        ("input_size", 10**9, "input_size must be a whole number, from 16 to 4096, got 1000000000"),
        ("learning_rate", 1e9, "learning_rate must be above 0 and at most 10, got 1000000000"),
        ("validate_every", -1, "validate_every must be"),
        ("patience", 0, "patience must be a whole number, at least 1, got 0"),
        ("learning_rate", 0, "learning_rate must be above 0 and at most 10, got 0"),
        ("learning_rate", "fast", "learning_rate must be a number, .*got 'fast'"),
        ("learning_rate", float("nan"), "learning_rate must be above 0"),
        ("learning_rate", float("inf"), "learning_rate must be above 0"),
        ("epochs", 0, "epochs must be a whole number, from 1 to 1000000000, got 0"),
        ("input_size", 8, "input_size must be a whole number, from 16 to 4096, got 8"),
        ("head_factor", 0, "head_factor must be positive"),
        ("clip_norm", 0, "clip_norm must be positive, got 0"),
        ("clip_norm", float("nan"), "clip_norm must be positive, got nan"),
        ("clip_norm", "1", "clip_norm must be a number, positive, got '1'"),
        ("warmup", 1.5, "warmup must be from 0 to 1, got 1.5"),
        ("schedule", "linear", "schedule must be one of cosine, constant, got 'linear'"),
        ("precision", "float16", "precision must be one of float32, bf16, got 'float16'"),
        ("tune", 1, "tune must be 0 .* or at least 2 values to choose from, got 1"),
        ("tune", 6, "tune must be a whole number, from 0 to 5, got 6"),
        ("augmix_severity", 11, "augmix_severity must be a whole number, from 1 to 10, got 11"),
        ("augmix_severity", 2.5, "augmix_severity must be a whole number"),
        ("classical_strength", 0, "classical_strength must be above 0 and at most 1, got 0"),
        ("repeat_share", 0, "repeat_share must be above 0 and at most 1, got 0.*baseline"),
        ("weight_decay", -0.1, "weight_decay must be at least 0, got -0.1"),
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


# By name


def test_the_papers_protocol():
    paper = preset("paper")
    assert (paper.classifier, paper.weights) == ("vgg16", "imagenet")
    assert (paper.epochs, paper.batch_size, paper.learning_rate, paper.patience) == (100, 8, 0.0002, 20)
    assert (paper.alpha, paper.real_partner, paper.tune) == (0.3, 0.0, 5)
    # Its training part of 681 images: 86 batches an epoch, a validation after each.
    steps = paper.for_training_set(681)
    assert (steps.steps, steps.validate_every, steps.epochs) == (8600, 86, None)


def test_fast_is_the_papers_but_for_its_arithmetic():
    changed = {
        name: value for name, value in preset("fast").to_dict().items() if value != preset("paper").to_dict()[name]
    }
    assert changed == {"precision": "bf16"}


def test_small_stops_never_early_and_needs_no_training_set_to_know_its_steps():
    small = preset("small")
    assert small.patience is None
    assert small.for_training_set(100) is small
    assert small.steps % small.validate_every == 0


def test_few_labels_fit_in_a_batch_and_the_last_weights_are_taken():
    few = preset("few-labels")
    assert few.batch_size <= 2 * 5
    assert few.validate_every > few.steps
    assert (few.classifier, few.weights, few.flips) == ("small", None, False)
    assert few.for_training_set(10) is few
    # Only what there is a reason for is another than by default.
    default = Protocol().to_dict()
    changed = {name for name, value in few.to_dict().items() if value != default[name]}
    assert changed == {"steps", "batch_size", "validate_every"}


def test_changes():
    assert preset("small", tune=0, steps=5).to_dict() == {**preset("small").to_dict(), "tune": 0, "steps": 5}
    assert preset("scratch") == Protocol()
    with pytest.raises(InputError, match="preset must be one of scratch, paper, small, fast, few-labels, got 'big'"):
        preset("big")
    with pytest.raises(InputError, match="no such option: stepps; did you mean steps"):
        preset("small", stepps=3)
    with pytest.raises(InputError, match="tune must be"):
        preset("small", tune=9)


def test_steps_that_are_asked_for_are_taken_where_the_preset_counts_epochs():
    assert preset("paper", steps=7).for_training_set(681).steps == 7
    assert preset("paper", steps=7, epochs=2, batch_size=8).for_training_set(16).steps == 4


def test_the_documentation_has_the_table_of_the_settings():
    page = Path(__file__).parents[2] / "docs" / "reference" / "evaluation.md"
    assert "<!-- settings: genmix_transforms.evaluation.protocol.Protocol -->" in page.read_text(encoding="utf-8")
    assert "| `learning_rate` | " in Protocol.table()
