"""The package as a whole: what an import costs, which room may know which, and that what the docstrings say runs."""

import ast
import contextlib
import doctest
import importlib
import inspect
import io
import json
import os
import pkgutil
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import genmix_transforms

ROOT = Path(genmix_transforms.__file__).parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT)], "genmix_transforms.")
    if not module.name.endswith("__main__")
)


# What an import loads


HEAVY = {"torch", "torchvision", "numpy", "PIL", "torchmetrics", "accelerate", "diffusers", "transformers",
         "matplotlib", "sklearn", "pandas", "filelock", "numba", "yaml"}  # fmt: skip

STAGES = {
    "import genmix_transforms, genmix_transforms.cli.main": set(),
    "from genmix_transforms.cli import bank, convert, demo, evaluate, fill, options, split, styles": set(),
    "from genmix_transforms import GenMix, SyntheticBank": {"torch", "torchvision", "numpy", "PIL"},
    "from genmix_transforms.evaluation import ARMS, Protocol, Results, evaluate, mixing_figure": {"filelock"},
    "from genmix_transforms.evaluation.figures import *": set(),
    "from genmix_transforms.data import LesionPhantom, open_dataset": set(),
    "from genmix_transforms.generators import DCGAN": {"yaml"},
}
"""What is imported, one after the other, and which heavy libraries may come with it."""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """The heavy libraries that each stage has brought, in a fresh process: what this one has loaded says nothing."""
    script = f"import sys, json; stages, seen = {{}}, set()\nfor stage in {list(STAGES)!r}:\n"
    script += f"    exec(stage)\n    now = {HEAVY!r} & set(sys.modules)\n"
    script += "    stages[stage] = sorted(now - seen)\n    seen |= now\nprint(json.dumps(stages))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("stage", STAGES)
def test_an_import_loads_only_what_it_needs(stage, loaded):
    assert set(loaded[stage]) <= STAGES[stage]


def test_types_are_announced():
    assert (ROOT / "py.typed").is_file()


def test_public_names_are_importable_from_the_package():
    assert set(genmix_transforms.__all__) == {"GenMix", "SyntheticBank", "__version__"}
    assert all(hasattr(genmix_transforms, name) for name in genmix_transforms.__all__)


# Who may import whom


MAY_IMPORT = {
    "errors": set(),
    "buffers": set(),
    "lazy": set(),
    "moved": set(),
    "settings": {"errors"},
    "files": {"errors"},
    "bank": {"errors", "lazy", "buffers", "files"},
    "transforms": {"errors", "lazy", "buffers", "files", "bank"},
    "data": {"errors", "lazy", "settings", "files", "bank"},
    "generators": {"errors", "lazy", "settings", "files", "bank", "transforms", "data"},
    "evaluation": {"errors", "lazy", "settings", "files", "bank", "transforms", "data", "generators"},
    "cli": {"errors", "settings", "files", "bank", "transforms", "data", "generators", "evaluation"},
    "__init__": {"lazy", "moved", "bank", "transforms"},
    "__main__": {"cli"},
}
"""A room imports itself and rooms below it; ``data`` and ``transforms`` do not know each other."""

SOURCES = sorted(ROOT.rglob("*.py"))


def imported_rooms(path):
    """The rooms that a source file imports, also inside functions, under TYPE_CHECKING, relatively or by a string."""
    package = ["genmix_transforms", *path.relative_to(ROOT).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) + 1 - node.level], *filter(None, [node.module])])
                if node.level
                else node.module
            )
            names.update({base, *(f"{base}.{alias.name}" for alias in node.names)})
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.value.startswith("genmix_transforms.")
        ):
            names.add(node.value)  # import_module("genmix_transforms...")
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "genmix_transforms" and len(part) > 1 and part[1] in MAY_IMPORT}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_below_it(path):
    first = path.relative_to(ROOT).parts[0]
    room = first.removesuffix(".py")
    assert room in MAY_IMPORT, f"{room} is no room of the house"
    assert imported_rooms(path) - {room} <= MAY_IMPORT[room]


@pytest.mark.parametrize(
    ("text", "rooms"),
    [
        ("import genmix_transforms.cli.main", {"cli"}),
        ("from genmix_transforms.data import patches", {"data"}),
        ("from genmix_transforms import evaluation", {"evaluation"}),
        ("def late():\n    from genmix_transforms.generators.base import Generator", {"generators"}),
        ("from ..transforms import functional", {"transforms"}),
        ("from . import store", set()),
        ("H = {'DCGAN': 'genmix_transforms.generators.dcgan'}", {"generators"}),
        ("import torch, numpy.random", set()),
    ],
)
def test_no_way_of_importing_is_missed(tmp_path, monkeypatch, text, rooms):
    """The check above can fail."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "bank" / "new.py"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    assert imported_rooms(path) - {"bank"} == rooms


# What is public is described, and the examples run


PUBLIC = [
    pytest.param(module, name, id=f"{module.__name__}.{name}")
    for module in map(importlib.import_module, ["genmix_transforms", *MODULES])
    for name in getattr(module, "__all__", ())
    if callable(getattr(module, name))  # a constant has the docstring of its type
]


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_public_names_have_a_docstring(module, name):
    thing = getattr(module, name)
    assert thing.__doc__  # its own, not an inherited one
    if inspect.isclass(thing):
        for method_name, method in vars(thing).items():
            if not method_name.startswith("_") and (inspect.isroutine(method) or isinstance(method, property)):
                assert inspect.getdoc(getattr(thing, method_name)), f"{name}.{method_name}"


def examples_of(name):
    """The doctests of a module, with its own names, torch and np."""
    module = importlib.import_module(name)
    names = {"torch": torch, "np": np, **vars(module)}
    return [test for test in doctest.DocTestFinder().find(module, name, globs=names) if test.examples]


@pytest.mark.parametrize("name", ["genmix_transforms", *MODULES])
def test_examples_run_as_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    random.seed(0)
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for test in examples_of(name):
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            runner.run(test, out=report.write)
    assert runner.failures == 0, report.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "bank.synthetic_bank", "transforms.genmix", "transforms.functional", "data.patches", "data.phantom",
        "generators.dcgan.generator", "generators.adm.generator", "generators.filling",
    ],
)  # fmt: skip
def test_the_public_classes_have_an_example_that_runs(name):
    """An example that is skipped shows how, but proves nothing."""
    examples = [example for test in examples_of(f"genmix_transforms.{name}") for example in test.examples]
    assert any(not example.options.get(doctest.SKIP) for example in examples)
