"""What `pip install` brings: a wheel with all that the package reads, which runs by itself."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASK = "import sysconfig; print(sysconfig.get_path('purelib'))"
PARTS = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "src")


def run(*command: str | Path, cwd: Path) -> str:
    told = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=told, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy, so that nothing is left in the checkout."""
    place = tmp_path_factory.mktemp("wheel")
    for name in PARTS:
        if (ROOT / name).is_dir():
            leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / name, place / "copy" / name, ignore=leave)
        else:
            (place / "copy").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, place / "copy" / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps")
    run(*pip, "--no-build-isolation", "--wheel-dir", place, place / "copy", cwd=place)
    (made,) = place.glob("skipsr-*.whl")
    return made


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path):
    source = ROOT / "src"
    known = {
        path.relative_to(source).as_posix()
        for path in (source / "skipsr").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("skipsr/")}
    assert packed == known
    assert {"skipsr/web/page/index.html", "skipsr/assets/sample.mp4"} <= packed


@pytest.mark.slow
def test_the_wheel_runs_in_an_environment_of_its_own(wheel: Path, tmp_path: Path):
    """Beside the libraries that are here, which the fresh environment is told of."""
    place = tmp_path / "env"
    run(sys.executable, "-m", "venv", "--without-pip", place, cwd=tmp_path)
    binaries = place / ("Scripts" if os.name == "nt" else "bin")
    python = binaries / Path(sys.executable).name
    own = Path(run(python, "-c", ASK, cwd=tmp_path).strip())
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel, cwd=tmp_path)
    # after the install, for pip would find what is installed there
    (own / "here.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files stay unread
    listed = run(binaries / "skipsr", "models", "list", cwd=tmp_path)
    assert "skipvsr:nano     bundled" in listed
    sample = Path(str(files("skipsr.assets"))) / "sample.mp4"
    run(
        binaries / "skipsr", "upscale", sample, "out.mp4", "--scale", "2", "--device", "cpu",
        cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "out.mp4").stat().st_size > 50_000
