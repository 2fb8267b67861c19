"""The room's front door: its names. What opening it does not bring along, ``test_package.py`` tells."""

import pytest

import genmix_transforms.evaluation as evaluation


@pytest.mark.parametrize("name", ["ARMS", "Protocol", "Results", "evaluate", "mixing_figure"])
def test_names(name):
    assert getattr(evaluation, name) is not None
    assert name in evaluation.__all__
    assert name in dir(evaluation)


def test_no_such_name():
    with pytest.raises(AttributeError, match="has no attribute 'evaluat'"):
        _ = evaluation.evaluat
