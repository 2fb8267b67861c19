"""What users write is clean under ``mypy --strict``, and what is wrong is found: the package's types are public."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
USER_CODE = ROOT / "tests" / "typed" / "user_code.py"

SETTINGS = """\
[mypy]
strict = True
[mypy-torchvision.*]
ignore_missing_imports = True
[mypy-genmix_transforms.*]
follow_imports = silent
"""

WRONG = """\
from torch import Tensor
from genmix_transforms import GenMix, SyntheticBank
bank = SyntheticBank.load("bank")
GenMix(bank, pairing="rare")
GenMix(bank, absent="ignore")
GenMix(bank, labels_getter="label")
def mix(genmix: GenMix, images: Tensor, labels: Tensor) -> Tensor:
    return genmix(images, labels)
"""


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """Mypy on some code, with a cache that the calls share."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    folder = tmp_path_factory.mktemp("mypy")
    (folder / "mypy.ini").write_text(SETTINGS, encoding="utf-8")

    def run(path):
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            folder / "mypy.ini",
            "--cache-dir",
            folder / "cache",
            path,
        ]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    return run


@pytest.mark.slow
def test_user_code_is_clean_and_mistakes_are_found(mypy, tmp_path):
    found = mypy(USER_CODE)
    assert found.returncode == 0, found.stdout + found.stderr
    (tmp_path / "wrong.py").write_text(WRONG, encoding="utf-8")
    lines = mypy(tmp_path / "wrong.py").stdout.splitlines()
    assert [line.split(":")[1] for line in lines if ": error: " in line] == ["4", "5", "6", "8"]
