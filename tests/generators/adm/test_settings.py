"""Settings of training: presets, what replaces them, what defines a run, and every value that cannot work."""

from typing import Any

import pytest

from genmix_transforms.errors import InputError
from genmix_transforms.generators import ADM
from genmix_transforms.generators.adm.settings import ADMNetworkSettings, ADMSettings, ClassifierSettings, resolve


def settings(**options: Any) -> ADMSettings:
    return ADMSettings.of(options, name="ADM.fit")


def test_the_presets() -> None:
    assert settings().learning_rate == 1e-4  # Dhariwal, Nichol, appendix I
    paper = settings(preset="paper")  # the budget of Lee et al., section 3.1
    assert (paper.steps, paper.batch_size, paper.learning_rate) == (70_000, 8, 1e-4)
    assert (settings().steps, settings().batch_size, settings().ema_decay) == (50_000, 32, 0.9999)
    classifier = ClassifierSettings.of({}, name="train_classifier")
    assert (classifier.learning_rate, classifier.weight_decay) == (3e-4, 0.05)  # Dhariwal, Nichol, appendix H


def test_single_numbers_replace_those_of_the_preset() -> None:
    chosen = settings(preset="paper", steps=5, learning_rate=1e-3)
    assert (chosen.steps, chosen.batch_size, chosen.learning_rate) == (5, 8, 1e-3)


def test_what_defines_a_run_is_what_it_was_in_the_first_release() -> None:
    identity = {
        "learning_rate": 1e-4, "weight_decay": 0.0, "ema_decay": 0.9999, "label_dropout": None, "mirror": False,
        "timesteps": "uniform", "tune": "all",
    }  # fmt: skip
    assert settings(accumulate=4, gradient_checkpointing=True, ema_device="cpu").identity() == identity
    assert settings(tune="lora").identity() == {**identity, "tune": "lora", "lora_rank": 8}
    assert ClassifierSettings.of({}, name="").identity() == {
        "learning_rate": 3e-4, "weight_decay": 0.05, "augment": ["translation"], "mirror": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timesteps": "importance"}, "timesteps must be one of uniform, loss-second-moment"),
        ({"tune": "heads"}, "tune must be one of all, attention, lora"),
        ({"accumulate": 0}, "accumulate must be a whole number, at least 1"),
        ({"lora_rank": 0}, "lora_rank must be a whole number, from 1 to 4096, got 0"),
        ({"learning_rate": 0}, "learning_rate must be above 0 and at most 10, got 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, above 0 and at most 10, got 'fast'"),
        ({"weight_decay": -0.1}, "weight_decay must be from 0 to 10"),
        ({"ema_decay": 1.0}, "ema_decay must be above 0 and below 1, got 1.0"),
        ({"ema_device": "gpu"}, "no device 'gpu' here"),
        ({"label_dropout": 1.0}, "label_dropout must be at least 0 and below 1"),
        ({"augment": ()}, "no such option: augment; there are preset, steps"),
    ],
)
def test_values_that_cannot_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(**options)


@pytest.mark.parametrize(
    ("null_class", "given", "dropout"), [(False, None, 0), (False, 0, 0), (True, None, 0.1), (True, 0.3, 0.3)]
)
def test_label_dropout_goes_with_the_row_for_no_class(null_class: bool, given: float | None, dropout: float) -> None:
    resolved = resolve(settings(label_dropout=given), null_class=null_class, warm_start=False, processes=1)
    assert resolved.label_dropout == dropout


@pytest.mark.parametrize(
    ("options", "null_class", "message"),
    [
        ({"accumulate": 5}, False, "a batch of 8 cannot be shared into 5 parts in each of 2 processes"),
        ({"tune": "attention"}, False, "adapts a network that knows images already: give warm_start=True"),
        ({"label_dropout": 0.1}, False, 'needs a network with a row for "no class": make it with null_class=True'),
        ({"label_dropout": 0.0}, True, "which label_dropout 0 would never teach"),
        ({"tune": "classes"}, False, "tune 'classes' adapts a network that knows images already"),
    ],
)
def test_settings_that_do_not_fit_the_network_or_the_processes(
    options: dict[str, Any], null_class: bool, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        resolve(settings(**{"batch_size": 8, **options}), null_class=null_class, warm_start=False, processes=2)


def test_the_networks_options() -> None:
    assert [option.name for option in ADMNetworkSettings.options()] == ["configuration", "null_class"]
    with pytest.raises(InputError, match="null_class must be True or False, got 'yes'"):
        ADMNetworkSettings.of({"null_class": "yes"}, name="ADM")


def test_rows_alone_leave_no_class_as_it_is() -> None:
    for given in (None, 0.0):
        chosen = settings(tune="classes", label_dropout=given)
        assert resolve(chosen, null_class=True, warm_start=True, processes=1).label_dropout == 0
    with pytest.raises(InputError, match='leaves a row for "no class" as it is'):
        resolve(settings(tune="classes", label_dropout=0.1), null_class=True, warm_start=True, processes=1)


def test_rows_alone_have_a_preset_of_their_own() -> None:
    rows = ADM.choose_settings({"tune": "classes"}, warm_start=True)
    assert rows.preset == "classes"
    assert rows.learning_rate > ADM.choose_settings({}, warm_start=True).learning_rate
    assert ADM.choose_settings({"preset": "classes"}, warm_start=True) == rows
    assert ADM.choose_settings({"tune": "classes", "preset": "fine-tune"}, warm_start=True).learning_rate == 1e-4
    assert ADM.choose_settings({"tune": "attention"}, warm_start=True).preset == "fine-tune"
