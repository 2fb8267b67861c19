"""The names of the package of figures. That none loads a plotting library, ``test_package.py`` tells."""

import sys

import pytest

from genmix_transforms.evaluation import figures


@pytest.mark.parametrize("name", figures.__all__)
def test_names(name):
    found = getattr(figures, name)
    assert found.__name__ == name
    assert not isinstance(found, type(sys))  # a module of the same name would hide the function
    assert name in dir(figures)


def test_no_such_name():
    with pytest.raises(AttributeError, match="has no attribute 'pie_chart'"):
        _ = figures.pie_chart
