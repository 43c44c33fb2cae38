"""Rows, means and files of a small run, recomputed from outside."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from made_clips import copy_with_broken
from made_models import make_frames
from PIL import Image

from skipsr.backbones.contract import Upscaler
from skipsr.backbones.seedvr2.token_skipping import TokenSkippingUpscaler
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.clip import Clip
from skipsr.data.benchmarks import Item
from skipsr.errors import MediaError, SettingsError
from skipsr.evaluation import quality as quality_module
from skipsr.evaluation.clips import find_clips
from skipsr.evaluation.gallery import Gallery
from skipsr.evaluation.methods import (
    MethodResult,
    WindowMask,
    read_results,
    run_bicubic,
    run_model,
)
from skipsr.evaluation.metric_suite import MetricSuite, choose_metrics
from skipsr.evaluation.page import quality_report
from skipsr.evaluation.quality import Methods, measure_quality
from skipsr.evaluation.record import facts, rounded
from skipsr.evaluation.results import Quality, Row, mean_table, stage_table, uneven_note
from skipsr.evaluation.samples import Sample, read_sample
from skipsr.metrics.metric import Metric, MetricError
from skipsr.settings import EvalSettings, SkipSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.route import Route

SETTINGS = EvalSettings(frames=5, metrics=("fidelity",))
RECORD = {
    "model": "seedvr2:tiny", "against": [], "data": "clips", "date": "2026-01-01", "commit": None,
    "device": "cpu", "dtype": "float32", "settings": {"eval": {"frames": 5}},
}  # fmt: skip


class Page(HTMLParser):
    """Tags with their attributes, and that each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "img", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "circle"):
            assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of 64x64 with a truth; one LR clip of 16x16 beside a truth of its own."""
    root = tmp_path_factory.mktemp("data") / "clips"
    for seed, name in enumerate(("first", "second")):
        (root / name).mkdir(parents=True)
        for index, frame in enumerate(make_frames(5, 64, 64, seed)):
            Image.fromarray(frame).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def models(tiny_upscaler: SeedVR2Upscaler) -> dict[str, SeedVR2Upscaler]:
    """The skipping model, half of whose tokens are computed, and the dense one."""
    clip = Clip.from_array(make_frames(5, 16, 16))
    with torch.inference_mode():
        latent = tiny_upscaler.model.encode(tiny_upscaler._frames(clip, (64, 64)))
        middle = tiny_upscaler.model.scores(latent).sigmoid().median().item()
    skipping = TokenSkippingUpscaler("tiny", tiny_upscaler.model, SkipSettings(threshold=middle))
    return {"tiny": skipping, "tiny, dense": tiny_upscaler}


@pytest.fixture(scope="module")
def run(clips: Path, models: dict[str, SeedVR2Upscaler]) -> tuple[Quality, Gallery]:
    methods = Methods(upscalers=models, reconstruct=True)
    return measure_quality(find_clips(clips, SETTINGS), methods, SETTINGS, RECORD)


def test_every_method_on_every_clip(run: tuple[Quality, Gallery]):
    quality, _ = run
    assert quality.clips == ["first", "second"]
    assert quality.methods == ["bicubic", "tiny", "tiny, dense", "reconstruction"]
    assert len(quality.rows) == 8
    for row in quality.rows:
        assert (row.width, row.height, row.frames) == (64, 64, 5)
        assert np.mean(row.psnr_frames) == pytest.approx(row.figures["psnr_y"])
        is_model = row.method.startswith("tiny")
        assert bool(row.seconds) == is_model
        assert (row.computed is not None) == is_model
    assert all(row.computed == 1 for row in quality.of("tiny, dense"))
    assert all(0 < row.computed < 1 for row in quality.of("tiny") if row.computed is not None)
    assert quality.compared() == ("tiny", "tiny, dense")


def test_every_model_runs_once_before_it_is_timed(
    clips: Path, models: dict[str, SeedVR2Upscaler], monkeypatch: pytest.MonkeyPatch
):
    """On a few frames; else the first model's seconds would hold what starting takes."""
    names = {id(upscaler): name for name, upscaler in models.items()}
    ran: list[tuple[str, str, int]] = []

    def note(sample: Sample, upscaler: Upscaler, seed: int) -> MethodResult:
        ran.append((sample.name, names[id(upscaler)], len(sample.low)))
        return run_model(sample, upscaler, seed)

    monkeypatch.setattr(quality_module, "run_model", note)
    monkeypatch.setattr(quality_module, "_WARMING", 2)
    measure_quality(find_clips(clips, SETTINGS), Methods(upscalers=models), SETTINGS, RECORD)
    assert sorted(ran[:2]) == [("first", "tiny", 2), ("first", "tiny, dense", 2)]
    measured = [(clip, name, 5) for clip in ("first", "second") for name in models]
    assert ran[2:] == measured


def test_flicker_at_borders_needs_no_asking(run: tuple[Quality, Gallery]):
    quality, _ = run
    assert list(quality.columns)[-2:] == ["border_flicker", "calm_flicker"]
    for row in quality.rows:  # only a mask has borders
        assert ("border_flicker" in row.figures) == (row.method == "tiny")


def test_figures_recomputed(run: tuple[Quality, Gallery], clips: Path, models: dict):
    """PSNR of bicubic and of the model, from frames made here."""
    quality, _ = run
    sample = read_sample(find_clips(clips, SETTINGS).items[0], SETTINGS, 8)
    assert sample.truth is not None
    truth = (sample.truth.numpy() * 255).round().astype(np.float64)
    direct = models["tiny"].upscale(Clip(sample.low), (64, 64)).clip.frames
    for method, frames in (
        ("bicubic", run_bicubic(sample).frames),
        ("tiny", direct),
    ):
        error = ((frames.numpy() * 255).round() - truth) ** 2
        expected = (10 * np.log10(255**2 / error.mean((1, 2, 3)))).mean()
        assert quality.of(method)[0].figures["psnr_rgb"] == pytest.approx(expected, abs=1e-4)


def test_the_file_pipeline_is_lossless(clips: Path, models: dict):
    sample = read_sample(find_clips(clips, SETTINGS).items[0], SETTINGS, 8)
    result = run_model(sample, models["tiny"], seed=3)
    direct = models["tiny"].upscale(Clip(sample.low), (64, 64), seed=3)
    assert torch.equal(result.frames, Clip.from_array(direct.clip.to_array()).frames)
    assert result.computed == direct.computed
    assert len(result.masks) == 1
    assert torch.equal(result.masks[0].compute_map.fractions, direct.compute_map.fractions)


def test_the_places_of_a_frame():
    keep = torch.zeros(3, 1, 1, dtype=torch.bool)
    keep[1] = True
    mask = WindowMask(8, ComputeMap.of_route(Route(keep), 9))
    assert mask.end == 17
    found = [bool(mask.cells(frame)) for frame in range(8, 17)]
    assert found == [False] + [True] * 4 + [False] * 4


def test_the_overlay_of_places_that_are_no_tokens():
    """A crop that begins inside a cell: its box begins there too, in cells."""
    gallery = Gallery(10_000)  # so many pictures that each is a part of its frame
    comparison = gallery.open("clip", 3, (400, 400))
    assert (comparison.top, comparison.left, comparison.height, comparison.width) == (
        112,
        112,
        160,
        160,
    )
    share = torch.zeros(3, 7, 7)
    share[1, 2:4] = 0.5  # rows 128 to 255
    computed = ComputeMap(fractions=share, cell_size=(64, 64), units_run=1, units_total=2)
    comparison.add("model", torch.zeros(3, 3, 400, 400), [WindowMask(0, computed)])
    (crop,) = comparison.crops
    assert crop.box == "0.75 0.75 2.5 2.5"
    assert crop.skipped == "M0 0h4v1h-4zM0 3h4v1h-4z"


def test_the_table_of_seconds_has_the_stages_of_all():
    rows = [
        Row(clip="a", method=name, width=8, height=8, frames=1, figures={}, seconds=seconds)
        for name, seconds in (
            ("diffusion", {"read": 1.0, "encode": 2.0, "write": 3.0, "total": 6.0}),
            ("recurrent", {"read": 1.0, "flow": 4.0, "write": 3.0, "total": 8.0}),
        )
    ]
    quality = Quality(record=RECORD, columns={}, rows=tuple(rows))
    table = stage_table(quality)
    assert table is not None
    title, _, head, _, *lines = table.markdown()
    assert [title, head, *lines] == [
        "## Seconds per clip",
        "| method | read | encode | flow | write | total |",
        "| diffusion | 1.00 | 2.00 |  | 3.00 | 6.00 |",
        "| recurrent | 1.00 |  | 4.00 | 3.00 | 8.00 |",
    ]


def test_means_and_differences_by_hand():
    def row(clip: str, method: str, seconds: float, **figures: float) -> Row:
        times = {"total": seconds} if seconds else {}
        return Row(
            clip=clip, method=method, width=8, height=8, frames=10, figures=figures, seconds=times
        )

    rows = (
        row("a", "bicubic", 0, psnr=20, lpips=0.5),
        row("a", "m", 2, psnr=24, lpips=0.5),
        row("b", "bicubic", 0, psnr=30),
        row("b", "m", 5, psnr=32, lpips=0.1),
    )
    quality = Quality(record=RECORD, columns={"psnr": "higher", "lpips": "lower"}, rows=rows)
    assert quality.means("m") == pytest.approx({"psnr": 28, "lpips": 0.3, "seconds": 3.5})
    assert quality.compared() == ("m", "bicubic")
    psnr, lpips = quality.differences("m", "bicubic")
    assert (psnr.value, psnr.better, psnr.clips) == (3, True, 2)
    assert (lpips.value, lpips.better, lpips.clips) == (0, None, 1)  # only clip a has both
    (worse, _) = quality.differences("bicubic", "m")
    assert (worse.value, worse.better) == (-3, False)
    assert rows[1].fps == 5
    assert rows[0].fps is None


def test_the_best_is_of_the_same_clips():
    """A hard clip for which one method has no value must not make its mean the best."""
    figures = {("a", "bicubic"): 4.0, ("a", "m"): 4.2, ("b", "m"): 9.0, ("b", "bicubic"): None}
    rows = tuple(
        Row(
            clip=clip, method=method, width=8, height=8, frames=1, seconds={},
            figures={"psnr": 20.0} | ({"niqe": niqe} if niqe else {}),
        )
        for (clip, method), niqe in figures.items()
    )  # fmt: skip
    quality = Quality(record=RECORD, columns={"psnr": "higher", "niqe": "lower"}, rows=rows)
    text = "\n".join(mean_table(quality).markdown())
    assert "| bicubic | **20.00** | 4 |" in text
    assert uneven_note(quality) == [
        "Means of niqe are not of the same clips for all methods: none is best."
    ]
    even = replace(quality, rows=rows[:2])
    assert "| bicubic | **20.00** | **4** |" in "\n".join(mean_table(even).markdown())
    assert uneven_note(even) == []


def test_files(run: tuple[Quality, Gallery], tmp_path: Path):
    quality, gallery = run
    page = quality_report(quality, gallery).save(tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["means"]["tiny"]["psnr_y"] == pytest.approx(
        np.mean([r["figures"]["psnr_y"] for r in found["rows"] if r["method"] == "tiny"]), abs=1e-4
    )
    assert found["difference"]["columns"]["psnr_y"]["value"] == pytest.approx(
        found["means"]["tiny"]["psnr_y"] - found["means"]["tiny, dense"]["psnr_y"], abs=1e-3
    )
    assert found["model"] == "seedvr2:tiny"
    table = (tmp_path / "results.md").read_text()
    for row in quality.rows:
        assert f"{row.figures['psnr_y']:.2f}" in table
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "index.html", "results.json", "results.md",
    ]  # fmt: skip
    check_page(page.read_text())


def check_page(text: str) -> None:
    """Self-contained, well formed, with a comparison and an overlay for each clip."""
    assert not re.search(r"https?:", text)
    page = Page(text)
    assert page.open == []
    links = [a.get("src") or a.get("href") or "" for _, a in page.tags]
    assert all(link.startswith("data:") for link in links if link)
    assert len(page.all("template")) == 2 * 5  # four methods and the truth
    assert all((a["src"] or "").startswith("data:image/webp;base64,") for a in page.all("img"))
    assert all(a["alt"] for a in page.all("img"))
    overlays = [a for a in page.all("svg") if a.get("aria-hidden")]
    assert [a["viewbox"] for a in overlays] == ["0 0 4 4"] * 2
    assert "{{" not in text


def test_words_of_others_are_escaped(run: tuple[Quality, Gallery]):
    quality, gallery = run
    rows = tuple(replace(row, clip="<b>&") for row in quality.rows)
    page = quality_report(replace(quality, rows=rows, notes=("<i>",)), gallery).html()
    assert "<b>" not in page
    assert "<i>" not in page


def test_clips_without_truth(tmp_path: Path, models: dict):
    folder = tmp_path / "lq" / "old"
    folder.mkdir(parents=True)
    for index, frame in enumerate(make_frames(5, 32, 32)):
        Image.fromarray(frame).save(folder / f"{index}.png")
    methods = Methods(upscalers={"tiny": models["tiny"]}, reconstruct=True)
    settings = EvalSettings(metrics=("fidelity", "temporal"))
    quality, gallery = measure_quality(
        find_clips(tmp_path / "lq", settings), methods, settings, RECORD
    )
    assert quality.methods == ["bicubic", "tiny"]
    assert "warp_error" in quality.columns
    assert "psnr_y" not in quality.columns
    assert all(row.psnr_frames == () for row in quality.rows)
    assert quality.rows[0].width == 128
    assert [p.method for p in gallery.comparisons[0].crops] == ["bicubic", "tiny"]


def test_results_of_other_programs(clips: Path, models: dict, tmp_path: Path):
    others = tmp_path / "other"
    shutil.copytree(clips, others)
    for path in (others / "second").iterdir():
        brighter = np.asarray(Image.open(path)).astype(int) + 2
        Image.fromarray(brighter.clip(0, 255).astype(np.uint8)).save(path)
    methods = Methods(upscalers=models, results=(others,))
    quality, _ = measure_quality(find_clips(clips, SETTINGS), methods, SETTINGS, RECORD)
    found = {row.clip: row for row in quality.rows if row.method == "other"}
    assert found["first"].figures["psnr_y"] == 100
    assert 40 < found["second"].figures["psnr_rgb"] < 60
    assert found["first"].computed is None

    shutil.rmtree(others / "second")
    with pytest.raises(MediaError, match="has no file named second: give one for each clip"):
        measure_quality(find_clips(clips, SETTINGS), methods, SETTINGS, RECORD)
    shutil.copytree(clips / "second", others / "second")
    (others / "second" / "4.png").unlink()
    quality, _ = measure_quality(find_clips(clips, SETTINGS), methods, SETTINGS, RECORD)
    assert quality.clips == ["first"]
    assert quality.faults["second"].endswith("4 frames of 64x64: 5 of 64x64 are needed")


def test_results_of_another_size_are_refused(tmp_path: Path):
    """Only what cropping to an even LR size takes off may be there beyond what is measured."""

    def folder(name: str, height: int, width: int) -> Path:
        (tmp_path / name).mkdir()
        for index, frame in enumerate(make_frames(2, height, width)):
            Image.fromarray(frame).save(tmp_path / name / f"{index}.png")
        return tmp_path / name

    made = read_sample(Item("clip", folder("truth", 67, 85), None), SETTINGS, 8)
    assert made.size == (64, 80)
    given = read_sample(Item("clip", None, folder("low", 17, 20)), SETTINGS, 8)
    assert given.size == (64, 80)
    for sample, height, width in ((made, 64, 80), (made, 67, 85), (made, 68, 88), (given, 68, 80)):
        path = folder(f"{sample.whole}-{height}", height, width)
        assert read_results(sample, path).frames.shape == (2, 3, 64, 80)
    for sample, height, width in ((made, 128, 160), (made, 64, 96), (given, 72, 80)):
        path = folder(f"no-{sample.whole}-{height}", height, width)
        with pytest.raises(MediaError, match=f"of {width}x{height}: 2 of 80x64 are needed"):
            read_results(sample, path)


def test_broken_clips_are_named_and_the_others_measured(
    clips: Path, models: dict, tmp_path: Path, run: tuple[Quality, Gallery]
):
    folder = copy_with_broken(clips, tmp_path / "clips", "first")
    told: list[str] = []
    methods = Methods(upscalers=models, reconstruct=True)
    quality, gallery = measure_quality(
        find_clips(folder, SETTINGS, told.append), methods, SETTINGS, RECORD
    )
    assert list(quality.faults) == ["broken", "cut"]
    for name, why in quality.faults.items():
        assert folder.name in why
        assert f"{name} is left out: {why}" in told
        assert f"{name} is left out: {why}" in quality.notes
    assert [row.figures for row in quality.rows] == [row.figures for row in run[0].rows]
    assert [comparison.clip for comparison in gallery.comparisons] == quality.clips
    shutil.rmtree(folder / "first")
    shutil.rmtree(folder / "second")
    with pytest.raises(MediaError, match=r"4\.png"):  # nothing is left to measure
        measure_quality(find_clips(folder, SETTINGS, told.append), methods, SETTINGS, RECORD)


@pytest.mark.skipif(find_spec("imageio_ffmpeg") is None, reason="needs imageio-ffmpeg")
def test_vmaf_ranks_the_truth_first():
    truth = Clip.from_array(make_frames(3, 64, 64)).frames
    suite = MetricSuite(choose_metrics(["vmaf"]))
    same, noisy = (
        suite.measure(frames, truth) for frames in (truth, (truth + 0.2).clamp(0, 1).roll(3, 3))
    )
    assert suite.notes == []
    assert same["vmaf"] > noisy["vmaf"] + 10


def test_a_metric_that_cannot_run_is_noted_once():
    def refuse(_: object, __: object) -> dict[str, float]:
        raise MetricError("its weights are missing")

    metric = Metric(
        name="shy", columns={"shy": "higher"}, needs_truth=False, default=False, measure=refuse
    )
    suite = MetricSuite([metric, *choose_metrics(["fidelity"])])
    frames = torch.rand(2, 3, 16, 16)
    for _ in range(2):
        assert list(suite.measure(frames, frames)) == ["psnr_y", "psnr_rgb", "ssim_y", "ssim_rgb"]
    assert suite.measure(frames, None) == {}
    assert suite.notes == ["shy is left out: its weights are missing"]


def test_metrics_by_name():
    assert [m.name for m in choose_metrics(("niqe", "fidelity"))] == ["niqe", "fidelity"]
    assert "fidelity" in [m.name for m in choose_metrics(())]
    assert all(m.default for m in choose_metrics(()))
    with pytest.raises(SettingsError, match="`metrics` psnr is unknown; there are fidelity"):
        choose_metrics(("psnr",))


def test_an_album_stays_small():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((1, 3, 720, 1280), generator=generator)
    gallery = Gallery(400)
    for index in range(4):
        comparison = gallery.open(str(index), 1, (720, 1280))
        comparison.add("noise", noise)
        gallery.keep(comparison)
    assert (
        comparison.top % 16
        == comparison.left % 16
        == comparison.height % 16
        == comparison.width % 16
        == 0
    )
    assert comparison.bytes < 15_000_000 / 400 * 3  # noise is the worst there is
    assert len(gallery.comparisons) == 4
    assert gallery.left_out == 0
    whole = Gallery(4).open("one", 5, (130, 210))
    assert (whole.frame, whole.top, whole.left, whole.height, whole.width) == (2, 0, 0, 130, 210)


def test_counts_are_shown_in_groups_of_digits_and_seeds_as_they_are_typed():
    record = {"parameters": {"m": 658682}, "settings": {"eval": {"seed": 20261128}}}
    assert facts(record) == {"parameters": "m 658,682", "eval.seed": "20261128"}


def test_records():
    assert rounded({"a": [1.23456789, Path("x")], "b": None}) == {"a": [1.23457, "x"], "b": None}
    shown = facts({"model": "m", "commit": None, "against": [], "settings": {"skip": {"tau": 0.5}}})
    assert shown == {"model": "m", "skip.tau": "0.5"}
