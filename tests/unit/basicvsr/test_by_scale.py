"""One model, networks for two scales: which runs, from which files, and what is said of it."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copy

import pytest
import torch
from made_models import make_clip, perturb
from made_videos import make_video, ramp

from skipsr.backbones.basicvsr.backbone import BACKBONE
from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.limits import limits_of
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.by_scale import ByScale
from skipsr.backbones.contract import Upscaler
from skipsr.catalog import list_models
from skipsr.cli import main
from skipsr.clip import Clip
from skipsr.errors import WeightsError
from skipsr.limits import Limits
from skipsr.loading import find_model, load_upscaler
from skipsr.pipeline.job import upscale_video
from skipsr.pipeline.plan import plan_windows
from skipsr.settings import JobSettings, RuntimeSettings, SkipSettings
from skipsr.skipping.need import HEADS, LOST, head_of
from skipsr.train.run import export

FOUR = BACKBONE.bundled["nano"]
CLIP = Clip(0.25 + make_clip(2, 24, 31).frames / 2)  # nothing is clamped
DOUBLE, FOURFOLD = (48, 62), (96, 124)
DENSE = SkipSettings(dense=True)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network for 2x, in a folder of its own."""
    torch.manual_seed(0)
    model = BasicVSR(PRESETS["nano-x2"])
    perturb(model, spread=0.02)
    folder = tmp_path_factory.mktemp("two")
    return export(model.requires_grad_(False), folder / "skipvsr-nano-x2.safetensors", {})


@pytest.fixture
def both(two: Path, tmp_path: Path) -> Path:
    """A folder with the files of both scales."""
    copy(FOUR, tmp_path)
    copy(two, tmp_path)
    return tmp_path


def load(weights: Path | None, name: str = "skipvsr:nano", skip: SkipSettings = DENSE) -> Upscaler:
    return load_upscaler(name, skip, RuntimeSettings(weights=weights, device="cpu"))


def result(upscaler: Upscaler, size: tuple[int, int]) -> torch.Tensor:
    return upscaler.upscale(CLIP, size).clip.frames


def test_the_least_scale_that_reaches_it_is_taken():
    limits = Limits(scale=4, others=(Limits(scale=2),))
    assert limits.scales == (2, 4)
    for factor, scale in ((0.5, 2), (1, 2), (2, 2), (2.9, 2), (2.95, 4), (4, 4), (6, 4)):
        size = round(100 * factor), round(180 * factor)
        assert limits.towards((100, 180), size).scale == scale, factor
    assert limits.towards((100, 180), (200, 720)).scale == 4  # the side that grows more decides
    alone = Limits(scale=2)
    assert alone.towards((100, 180), (400, 720)) is alone
    assert Limits().scales == ()
    assert Limits().towards((100, 180), (400, 720)).scale is None


def test_a_folder_with_both_files_gives_both_networks(both: Path, two: Path):
    upscaler = load(both)
    assert upscaler.name == "skipvsr:nano"
    assert upscaler.limits.scales == (2, 4)
    twice, fourfold = load(two), load(FOUR)
    assert twice.limits.scales == (2,)
    assert fourfold.limits.scales == (4,)
    for size in (DOUBLE, (40, 50), (69, 89)):
        assert torch.equal(result(upscaler, size), result(twice, size))
    for size in (FOURFOLD, (72, 93), (120, 155)):
        assert torch.equal(result(upscaler, size), result(fourfold, size))
    assert not torch.equal(result(twice, DOUBLE), result(fourfold, DOUBLE))
    assert isinstance(upscaler, ByScale)
    for scale, name in ((2, "nano-x2"), (3, "nano"), (4, "nano")):
        assert upscaler.at(scale).name == f"skipvsr:{name}"


@pytest.mark.parametrize("name", ["auto", "skipvsr:nano", "basicvsr:nano"])
def test_one_file_of_either_scale_serves_every_size(two: Path, name: str):
    upscaler = load(two, name)
    assert upscaler.name == "skipvsr:nano"
    fourfold = result(upscaler, FOURFOLD)
    native = result(upscaler, DOUBLE)
    expected = torch.nn.functional.interpolate(
        native, FOURFOLD, mode="bicubic", antialias=True, align_corners=False
    )
    torch.testing.assert_close(fourfold, expected, atol=1e-5, rtol=0)
    assert load(FOUR, name).name == "skipvsr:nano"


def test_a_folder_of_both_is_one_model(both: Path):
    assert find_model(runtime=RuntimeSettings(weights=both, device="cpu")).name == "skipvsr:nano"


def test_both_files_in_the_package_serve_at_once(two: Path, monkeypatch: pytest.MonkeyPatch):
    """What is bundled is named in one table."""
    monkeypatch.setitem(BACKBONE.bundled, "nano-x2", two)  # type: ignore[arg-type]
    upscaler = load(None)
    assert upscaler.limits.scales == (2, 4)
    assert torch.equal(result(upscaler, DOUBLE), result(load(two), DOUBLE))


def test_a_model_is_listed_once(two: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(BACKBONE.bundled, "nano-x2", two)  # type: ignore[arg-type]
    names = {model.name for model in list_models() if model.name.startswith("skipvsr")}
    assert names == {"skipvsr:nano", "skipvsr:small"}


def test_a_network_can_be_asked_for_by_its_own_name(both: Path):
    upscaler = load(both, "skipvsr:nano-x2")
    assert upscaler.name == "skipvsr:nano-x2"
    assert upscaler.limits.scales == (2,)


def test_a_file_of_another_model_is_refused(two: Path):
    with pytest.raises(WeightsError, match=r"does not fit basicvsr:small: it is basicvsr:nano-x2"):
        load(two, "skipvsr:small")


@pytest.mark.usefixtures("no_matrix_unit")
def test_skipping_goes_by_the_head_of_the_model(both: Path):
    """Each network by its own, where there is one; both skip one colour."""
    for name in ("skipvsr:nano", "skipvsr:nano-x2"):
        assert head_of(name) == HEADS.index(name)
    assert head_of("skipvsr:small-x2") == head_of("skipvsr:small") == LOST
    frames = torch.rand(2, 3, 48, 96, generator=torch.Generator().manual_seed(0))
    frames[..., 32:] = 0.5
    upscaler = load(both, skip=SkipSettings(quality=0.5))
    for factor in (2, 4):
        done = upscaler.upscale(Clip(frames), (48 * factor, 96 * factor))
        foretold = upscaler.compute_map(Clip(frames), (48 * factor, 96 * factor))
        assert torch.equal(done.compute_map.fractions, foretold.fractions)
        third = done.compute_map.fractions.shape[2] // 3
        assert done.compute_map.fractions[..., :third].mean() > 0.7
        assert done.compute_map.fractions[..., third + 1 :].mean() == 0
        assert done.compute_map.cell_size == (16, 16)


def test_what_one_network_lacks_does_not_stop_the_other(both: Path):
    """The file for 2x was not calibrated for skipped blocks; that for 4x was."""
    runtime = RuntimeSettings(weights=both, device="cpu")
    upscaler = load_upscaler("skipvsr:nano", SkipSettings(budget=0.7), runtime, {"skip": "blocks"})
    assert upscaler.upscale(CLIP, FOURFOLD).computed > 0
    with pytest.raises(WeightsError, match="were not calibrated"):
        upscaler.upscale(CLIP, DOUBLE)


def test_the_report_says_which_network_ran(both: Path, tmp_path: Path):
    source = make_video(tmp_path / "a.mp4", ramp(3, 24, 32))
    upscaler = load(both)
    for factor, scale in ((2.0, 2), (2.5, 2), (3.0, 4), (4.0, 4)):
        settings = JobSettings(scale=factor, overwrite=True)
        report = upscale_video(source, tmp_path / "b.mp4", upscaler, settings)
        assert report.scale == scale
        assert report.model == "skipvsr:nano"
        assert (report.height, report.width) == (24 * factor, 32 * factor)


def test_the_command_line_takes_the_network_for_the_factor(
    both: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = make_video(tmp_path / "a.mp4", ramp(2, 24, 32))
    for factor in (2, 4):
        target = str(tmp_path / f"x{factor}.mp4")
        command = ["upscale", str(source), target, "--weights", str(both), "--device", "cpu"]
        assert main.run([*command, "--scale", str(factor)]) == 0
        report = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (report["scale"], report["model"]) == (factor, "skipvsr:nano")


def test_windows_are_those_of_the_network_that_runs(both: Path):
    """At a quarter of the states, more frames fit."""
    limits = find_model(runtime=RuntimeSettings(weights=both, device="cpu")).limits
    settings = JobSettings(max_memory="3GiB")
    hd, qhd = (720, 1280), (1440, 2560)
    assert limits.towards(hd, qhd) == limits_of(PRESETS["nano-x2"], "cpu")
    at_two = plan_windows(hd, qhd, limits, settings)[0]
    assert at_two == plan_windows(hd, qhd, limits_of(PRESETS["nano-x2"]), settings)[0]
    assert at_two > plan_windows(hd, qhd, limits_of(PRESETS["nano"]), settings)[0]


def test_what_a_model_is_does_not_depend_on_what_it_has_done():
    """Networks become what `detail` asks for when they are used first."""
    upscaler = load_upscaler("skipvsr:nano", SkipSettings(), None, {"detail": 0.8})
    before = upscaler.identity()
    upscaler.upscale(CLIP, FOURFOLD)
    fresh = load_upscaler("skipvsr:nano", SkipSettings(), None, {"detail": 0.8})
    assert upscaler.identity() == before == fresh.identity()
    other = load_upscaler("skipvsr:nano", SkipSettings(), None, {"detail": 0.9})
    assert other.identity() != before


def test_threads_that_share_a_model_make_each_network_once(two: Path):
    """To make one mixes its two trainings, in place."""
    made: list[int] = []
    first = load(two)

    def other() -> Upscaler:
        made.append(1)
        time.sleep(0.05)  # while the other threads ask for it
        return first

    shared = ByScale("both", Limits(scale=4, others=(Limits(scale=2),)), first, {2: other})
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(shared.at, [2, 2, 2]))
    assert found == [first] * 3
    assert len(made) == 1
