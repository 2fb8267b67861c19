"""The door of the figures' package: its names, and that nobody who only mixes loads a plotting library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import genmix_transforms
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


def test_importing_loads_no_plotting_library():
    """In one process, the names of all figures included: to ask for them is not yet to draw."""
    script = (
        "from genmix_transforms import GenMix; from genmix_transforms.evaluation import mixing_figure; "
        "from genmix_transforms.evaluation.figures import *; "
        "import sys; print(*sorted({'matplotlib', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    root = str(Path(genmix_transforms.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
