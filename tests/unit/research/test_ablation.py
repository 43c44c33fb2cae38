"""Every policy on every clip at equal cost; shares and figures recomputed from outside."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from made_models import make_frames, perturb
from PIL import Image

from skipsr import backbones
from skipsr.backbones.contract import Upscaler
from skipsr.clip import Clip
from skipsr.errors import MediaError, SettingsError
from skipsr.evaluation.clips import find_clips
from skipsr.evaluation.samples import read_sample
from skipsr.loading import load_upscaler
from skipsr.metrics.fidelity import psnr_y
from skipsr.research.ablation import run_ablation
from skipsr.research.ablation_report import AblationStudy, ClipResult, PolicyRun, ablation_report
from skipsr.settings import EvalSettings, RuntimeSettings, SkipSettings
from skipsr.train.run import export

SETTINGS = EvalSettings(frames=3, metrics=("fidelity",))
RECORD = {"model": "basicvsr:tiny", "data": "clips", "date": "2026-01-01", "device": "cpu",
          "dtype": "float32", "settings": {"eval": {"frames": 3}}}  # fmt: skip
BUDGETS = (0.85, 0.7)
POLICIES = ["learned", "uniform", "shallow skip", "deep skip", "oracle", "unaligned"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of many tiles, and one without a truth."""
    root = tmp_path_factory.mktemp("data")
    for group, name, size in (("clips", "a", 400), ("clips", "b", 208), ("lq", "c", 16)):
        folder = root / group / name
        folder.mkdir(parents=True)
        for index, frame in enumerate(make_frames(3, 32, size, ord(name))):
            Image.fromarray(frame).save(folder / f"{index}.png")
    return root / "clips"


@pytest.fixture(scope="module")
def upscalers(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Upscaler]:
    """The tiny network, and another training of it."""
    backbone = backbones.get("skipvsr")
    found: dict[str, Upscaler] = {}
    for seed, name in enumerate(("basicvsr:tiny", "other")):
        torch.manual_seed(seed)
        model = backbone.build(backbone.presets["tiny"])
        perturb(model, seed)
        path = export(model, tmp_path_factory.mktemp("weights") / "model.safetensors", {})
        runtime = RuntimeSettings(weights=path, device="cpu", dtype="float32")
        found[name] = load_upscaler("basicvsr:tiny", SkipSettings(dense=True), runtime)
    return found


@pytest.fixture(scope="module")
def study(clips: Path, upscalers: Mapping[str, Upscaler]) -> AblationStudy:
    return run_ablation(
        find_clips(clips, SETTINGS, truths=True), upscalers, BUDGETS, SETTINGS, RECORD
    )


def test_what_is_run(study: AblationStudy):
    """Every policy with the model, and the variant's own choice."""
    ran = [(run.weights, run.policy, run.budget) for run in study.runs]
    first = [("basicvsr:tiny", policy, budget) for policy in POLICIES for budget in BUDGETS]
    other = [("other", "learned", budget) for budget in BUDGETS]
    dense = [(name, "dense", 1.0) for name in ("basicvsr:tiny", "other")]
    assert ran == [dense[0], *first, dense[1], *other]
    for run in study.runs:
        assert [result.clip for result in run.results] == ["a", "b"]
        assert all(result.frames == 3 and result.seconds > 0 for result in run.results)


def test_equal_budgets_cost_the_same(study: AblationStudy):
    """6912 of 12530 multiply-adds per pixel are those of blocks; few tiles make coarse steps."""
    for run in study.runs:
        assert run.always == pytest.approx(1 - 6912 / 12530)
        assert run.always + (1 - run.always) * run.wanted == pytest.approx(run.budget)
        whole_blocks = run.policy in ("shallow skip", "deep skip")
        by_chance = run.policy == "uniform"
        near = 1 / 6 if whole_blocks else 0.1 if by_chance else 0.05
        assert run.executed == pytest.approx(run.wanted, abs=near), run.name
        assert run.flops == pytest.approx(run.budget, abs=near * (1 - run.always))
    dense = [run for run in study.runs if run.policy == "dense"]
    assert all(run.executed == run.flops == 1 for run in dense)


def test_figures_are_those_of_the_models(
    study: AblationStudy, clips: Path, upscalers: Mapping[str, Upscaler]
):
    for name, upscaler in upscalers.items():
        (dense,) = (t for t in study.runs if (t.weights, t.policy) == (name, "dense"))
        for item, result in zip(find_clips(clips, SETTINGS).items, dense.results, strict=True):
            sample = read_sample(item, SETTINGS, 8)
            assert sample.truth is not None
            frames = upscaler.upscale(Clip(sample.low), sample.size).clip.frames
            expected = psnr_y(frames, sample.truth).mean().item()
            assert result.figures["psnr_y"] == pytest.approx(expected, abs=0.05)  # 8-bit file
    figures = [run.means()["psnr_y"] for run in study.runs]
    assert len(set(figures)) == len(figures)  # no two are the same run


def test_sums_and_means():
    """Shares weigh clips by their units and seconds by their frames; metrics weigh them alike."""
    results = tuple(
        ClipResult(
            clip=clip, frames=frames, computed=computed, total=total, seconds=1.0, figures={"x": x}
        )
        for clip, frames, computed, total, x in (("a", 1, 5, 10, 1.0), ("b", 4, 50, 200, 4.0))
    )
    run = PolicyRun(weights="w", policy="p", budget=0.5, always=0.2, results=results)
    assert run.executed == 55 / 210
    assert run.flops == pytest.approx(0.2 + 0.8 * 55 / 210)
    assert run.seconds == 2 / 5
    assert run.means() == {"x": 2.5}
    assert run.wanted == pytest.approx(0.3 / 0.8)


def test_curves_end_with_the_dense_network(study: AblationStudy):
    found = study.curves("psnr_y")
    assert list(found) == [*POLICIES, "other"]
    dense = {t.weights: t.means()["psnr_y"] for t in study.runs if t.policy == "dense"}
    for name, points in found.items():
        assert len(points) == 3
        assert points[-1] == (100, dense["other" if name == "other" else "basicvsr:tiny"])


class Tags(HTMLParser):
    """That each tag is closed, and how often each came."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "input", "img", "path", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "circle"):
            assert self.open.pop() == tag


def test_files(study: AblationStudy, tmp_path: Path):
    page = ablation_report(study).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ablation.html", "ablation.json", "ablation.md",
    ]  # fmt: skip
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert len(found["trials"]) == len(study.runs)
    for entry, run in zip(found["trials"], study.runs, strict=True):
        assert entry["flops"] == pytest.approx(run.flops, rel=1e-5)
        assert entry["means"]["psnr_y"] == pytest.approx(run.means()["psnr_y"], rel=1e-5)
        assert [result["clip"] for result in entry["results"]] == ["a", "b"]
    text = (tmp_path / "ablation.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| basicvsr:tiny | ")]
    assert len(lines) == 1 + len(POLICIES) * len(BUDGETS)
    assert all(line.count("|") == len(lines[0].split("|")) - 1 for line in lines)
    tags = Tags(page.read_text())
    assert not tags.open
    assert tags.seen.count("svg") == 2 * 4  # four metrics; six curves beside the model's own
    for name in (*POLICIES, "other"):
        assert name in page.read_text()


def test_what_cannot_be_compared(clips: Path, upscalers: Mapping[str, Upscaler]):
    def compare(*budgets: float, root: Path = clips, frames: int = 3) -> None:
        settings = replace(SETTINGS, frames=frames)
        run_ablation(
            find_clips(root, settings, truths=True), upscalers, budgets or BUDGETS, settings, RECORD
        )

    with pytest.raises(SettingsError, match=r"`budgets` 0\.4 is less than what basicvsr:tiny"):
        compare(0.9, 0.4)
    with pytest.raises(SettingsError, match=r"`budgets` names one twice: 0\.9 0\.9"):
        compare(0.9, 0.9)
    with pytest.raises(SettingsError, match=r"`budgets` 1\.5 is not above 0 and up to 1"):
        compare(1.5)
    with pytest.raises(SettingsError, match="compares with the truth, and no clip"):
        compare(root=clips.parent / "lq")
    with pytest.raises(SettingsError, match="first frames of these clips alone"):
        compare(frames=1)


def test_broken_clips_are_named_before_anything_is_tuned(
    clips: Path, upscalers: Mapping[str, Upscaler], tmp_path: Path
):
    """One that cannot be opened, and one whose last frame is cut off."""
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    last = folder / "a" / "2.png"
    last.write_bytes(last.read_bytes()[:200])
    (folder / "broken.mp4").write_bytes(b"no video")
    told: list[str] = []
    model = {"basicvsr:tiny": upscalers["basicvsr:tiny"]}
    found = run_ablation(
        find_clips(folder, SETTINGS, told.append, truths=True), model, (0.7,), SETTINGS, RECORD
    )
    assert list(found.faults) == ["broken", "a"]
    assert [line.split(" is left out: ")[0] for line in told[:2]] == ["broken", "a"]
    assert all([result.clip for result in run.results] == ["b"] for run in found.runs)
    report = ablation_report(found)
    assert report.summary["faults"] == report.json()["faults"] == found.faults
    assert told[1] in report.markdown()
    shutil.rmtree(folder / "b")
    with pytest.raises(MediaError, match=r"2\.png"):
        run_ablation(
            find_clips(folder, SETTINGS, told.append, truths=True), model, (0.7,), SETTINGS, RECORD
        )


def test_a_model_of_another_family(
    clips: Path, upscalers: Mapping[str, Upscaler], tiny_upscaler: Upscaler
):
    with pytest.raises(SettingsError, match="has no policies to compare: give a model of basicvsr"):
        run_ablation(
            find_clips(clips, SETTINGS, truths=True),
            {"mine": tiny_upscaler},
            BUDGETS,
            SETTINGS,
            RECORD,
        )
    mixed = {**upscalers, "mine": tiny_upscaler}
    with pytest.raises(SettingsError, match="`variants` mine is seedvr2:tiny, and no training of"):
        run_ablation(find_clips(clips, SETTINGS, truths=True), mixed, BUDGETS, SETTINGS, RECORD)
