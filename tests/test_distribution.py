"""What is published: the source distribution is the checkout, and the files for those who carry on are sound."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CARD = {"torch", "torchvision", "numpy", "diffusers", "safetensors", "huggingface-hub"}
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "*.pyc", ".git", ".venv*", ".*_cache", ".hypothesis", "*.egg-info", "node_modules", "site", "build",
    "dist", ".coverage*", "package*.json", "runs", "banks", "results", "genmix-demo",
)  # fmt: skip


def test_the_source_distribution_has_the_whole_test_suite_and_what_it_reads(tmp_path):
    """Half a suite would fail where it is unpacked."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=LEFT_OUT, symlinks=True)
    script = f"from setuptools.build_meta import build_sdist; print(build_sdist({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=checkout, capture_output=True, text=True, check=False)
    if "No module named 'setuptools'" in done.stderr:
        pytest.skip("setuptools is not installed")
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.splitlines()[-1]) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("tests", "benchmarks", "docs", "genmix_transforms", ".ci", ".github"):
        files = {path.relative_to(checkout).as_posix() for path in (checkout / folder).rglob("*") if path.is_file()}
        assert not files - found
    assert not {path.name for path in checkout.iterdir() if path.is_file()} - found
    assert not [name for name in found if "__pycache__" in name]


def names(requirements):
    """The packages of some requirements, without versions; of this package's own extras, what they require."""
    for requirement in requirements:
        name, _, rest = requirement.partition(">=")[0].partition("[")
        if name == PROJECT["name"]:
            for extra in rest.rstrip("]").split(","):
                yield from names(PROJECT["optional-dependencies"][extra])
        else:
            yield name


def test_what_everybody_installs_is_what_the_demo_needs():
    core = set(names(PROJECT["dependencies"]))
    assert core >= CARD
    assert not core & {"accelerate", "torchmetrics", "transformers", "peft", "matplotlib", "scikit-learn", "numba"}


def test_the_extras_hold_together():
    extras = {extra: set(names(found)) for extra, found in PROJECT["optional-dependencies"].items()}
    assert {"accelerate", "transformers", "peft"} <= extras["generators"]
    assert {"torchmetrics", "matplotlib", "scikit-learn"} <= extras["evaluate"]
    tools = {"test", "bench", "docs"}
    assert set.union(*(found for extra, found in extras.items() if extra not in tools)) == extras["all"]
    assert extras["all"] <= extras["test"]


@pytest.mark.parametrize(
    "path",
    [".github/dependabot.yml", ".github/workflows/ci.yml", ".github/ISSUE_TEMPLATE/bug.yml", ".pre-commit-config.yaml",
     ".github/ISSUE_TEMPLATE/idea.yml", ".github/ISSUE_TEMPLATE/config.yml", ".readthedocs.yaml", "CITATION.cff"],
)  # fmt: skip
def test_settings_of_services_can_be_read(path):
    assert isinstance(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")), dict)


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    heading = f"## [{PROJECT['version']}] - {citation['date-released']}"
    assert heading in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_continuous_integration_runs_the_one_script():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert ".ci/run" in [step.get("run") for job in jobs.values() for step in job["steps"]]
    declared = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert set(jobs["everything"]["strategy"]["matrix"]["python"]) == declared
