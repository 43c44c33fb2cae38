"""Benchmarks that are run seldom, some on a GPU alone, fit the package as it is."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "benchmarks"
MODULES = sorted(
    ".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("*.py")
)


def faults() -> Iterator[tuple[str, str, str]]:
    """Modules that cannot be imported, in a process of their own, a missing module, and why.

    The second is empty where a module is there and lacks a name.
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
    for line in done.stdout.splitlines():
        name, absent, why = line.split("\t", 2)
        yield name, absent, why


def test_there_are_benchmarks():
    assert {"regions", "gpu.models", "gpu.levers"} <= set(MODULES)


def test_what_they_import_is_there():
    """But for what others have to install first."""
    ours = {"skipsr", *(module.partition(".")[0] for module in MODULES)}
    found = [
        f"{name}: {why}"
        for name, absent, why in faults()
        if not absent or absent.partition(".")[0] in ours
    ]
    assert found == []
