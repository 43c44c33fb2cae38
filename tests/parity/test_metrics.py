"""Metrics, resizing and BD degradation against numbers of the original code, on a few pictures."""

import json
import shutil
from pathlib import Path

import check as common
import check_metrics as check
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).parent
FOLDER = HERE / "metrics"
FILES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".json", ".safetensors"))
CHECKED = [name for name in FILES if name != "images.safetensors"]
# file: a tensor or a column that is changed, and by how much
SPOILT = {
    "psnr_ssim.json": ("psnr_y", 0.001),
    "niqe.json": ("niqe_y", 0.05),
    "niqe_intermediate.safetensors": ("features.img0.ref", 0.05),
    "niqe_pristine_params.safetensors": ("cov", 1e-9),
    "brisque.json": ("score", 0.2),
    "brisque_features.safetensors": ("raw.img0.ref", 0.01),
    "imresize.safetensors": ("up2.y", 1e-4),
    "bd_degradation.safetensors": ("bd_even_2.y", 1e-4),
}


def test_every_file_is_checked():
    assert set(CHECKED) <= set(check.CHECKS)
    assert set(CHECKED) == set(SPOILT)


@pytest.mark.parametrize("name", CHECKED)
def test_matches_the_original(name: str):
    worst, tolerance, good, remark = check.run(FOLDER / name)
    assert good, f"{name}: {worst:.2e} > {tolerance:.1e} ({remark})"


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_number_is_noticed(name: str, tmp_path: Path):
    """The comparison itself must be able to fail."""
    key, change = SPOILT[name]
    shutil.copy(FOLDER / "images.safetensors", tmp_path)
    path = tmp_path / name
    if path.suffix == ".json":
        table = json.loads((FOLDER / name).read_text())
        table["rows"][-1][key] += change
        path.write_text(json.dumps(table))
    else:
        with safe_open(FOLDER / name, "pt") as file:
            tensors = {k: file.get_tensor(k).clone() for k in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        tensors[key].view(-1)[0] += change
        save_file(tensors, path, metadata)
    worst, _, good, _ = check.run(path)
    assert not good
    assert worst == pytest.approx(change, rel=0.2)


def test_a_folder_of_metrics_goes_through_the_common_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(FOLDER / "imresize.safetensors", tmp_path)
    assert common.main(tmp_path) == 0
    told = capsys.readouterr().out
    assert told.split()[0] == "imresize"
    assert " ok " in told
