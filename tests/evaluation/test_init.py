"""The room's front door: its names, and what opening it does not bring along."""

import subprocess
import sys

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


def test_importing_brings_no_heavy_library():
    program = (
        "import sys\n"
        "from genmix_transforms.evaluation import ARMS, Protocol, Results, evaluate, mixing_figure\n"
        "heavy = {'torchmetrics', 'matplotlib', 'sklearn', 'pandas', 'diffusers', 'transformers', 'accelerate'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
