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
def faults() -> dict[str, tuple[str, str]]:
    """Of each module that cannot be imported, in a process of their own, a missing module, and why.

    The first is empty where a module is there and lacks a name.
    """
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        absent = error.name if isinstance(error, ModuleNotFoundError) else ''\n"
        "        print(name, absent, error, sep='\\t')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *MODULES],
        cwd=FOLDER, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = (line.split("\t", 2) for line in done.stdout.splitlines())
    return {name: (absent, why) for name, absent, why in rows}


def test_there_are_benchmarks():
    assert {"regions", "gpu.models", "gpu.levers"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_what_they_import_is_there(name: str, faults: dict[str, tuple[str, str]]):
    absent, why = faults.get(name, ("", ""))
    ours = {"skipsr", *(module.partition(".")[0] for module in MODULES)}
    if absent and absent.partition(".")[0] not in ours:
        pytest.skip(f"{absent} is not installed")
    assert not why
