"""Benchmarks that are run seldom, some on a GPU alone, fit the package as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
MODULES = sorted(
    ".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("*.py")
)


@pytest.fixture(scope="module")
def imported() -> dict[str, str]:
    """Of each module that cannot be imported, in a process of their own, why."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        print(name, error, sep='\\t')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *MODULES],
        cwd=FOLDER, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(line.split("\t", 1) for line in done.stdout.splitlines())


def test_there_are_benchmarks():
    assert {"regions", "gpu.models", "gpu.levers"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_what_they_import_is_there(name: str, imported: dict[str, str]):
    assert name not in imported, imported[name]
