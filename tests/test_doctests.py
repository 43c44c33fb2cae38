"""Examples in docstrings are run."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import skipsr

ROOT = Path(skipsr.__file__).parent
MODULES = sorted(
    ".".join(("skipsr", *path.relative_to(ROOT).with_suffix("").parts))
    for path in ROOT.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str):
    failed, tried = doctest.testmod(import_module(name))
    assert tried
    assert not failed
