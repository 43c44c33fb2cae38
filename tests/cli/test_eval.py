"""`skipsr eval` as users call it: files appear whole, bad jobs end in one sentence."""

import json
import signal
from pathlib import Path

import pytest
import torch
from command import Forks, Result
from made_models import make_frames
from PIL import Image
from safetensors.torch import load_file, save_file

from skipsr import backbones
from skipsr.cli.main import name_actions, run
from skipsr.train.run import export


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, one with LR clips alone, and what goes with votes."""
    folder = tmp_path_factory.mktemp("input")
    for group, size in (("clips", 64), ("lq", 16)):
        for seed, name in enumerate(("walk", "city")):
            path = folder / group / name
            path.mkdir(parents=True)
            for index, frame in enumerate(make_frames(5, size, size, seed)):
                Image.fromarray(frame).save(path / f"{index}.png")
    (folder / "tiny" / "a").mkdir(parents=True)
    Image.fromarray(make_frames(1, 24, 24)[0]).save(folder / "tiny" / "a" / "0.png")
    (folder / "empty").mkdir()
    (folder / "torn").mkdir()
    for name in ("a", "b"):
        (folder / "torn" / f"{name}.mp4").write_bytes(b"no video")
    (folder / "text").write_text("no folder")
    key = {"study": "x", "a": "new", "b": "old", "left": {"walk": "a", "city": "b"}}
    (folder / "key.json").write_text(json.dumps(key))
    votes = {"study": "x", "votes": {"walk": "left", "city": "left"}}
    (folder / "votes.json").write_text(json.dumps(votes))
    (folder / "stranger.json").write_text(json.dumps({**votes, "study": "y"}))
    return folder


BAD = {
    "no such folder": ["nowhere"],
    "a file": ["text"],
    "an empty folder": ["empty"],
    "no clip of that name": ["clips", "--only", "tram"],
    "clips too small": ["tiny"],
    "broken clips": ["torn"],
    "masks of broken clips": ["masks", "torn"],
    "a study of broken clips": ["study", "torn", "--against", "dense"],
    "an ablation of broken clips": ["ablation", "torn", "--model", "skipvsr:nano"],
    "unknown metric": ["clips", "--metrics", "beauty"],
    "metric without truth in masks": ["masks", "clips", "--metrics", "niqe"],
    "masks without truth": ["masks", "lq"],
    "unknown model": ["clips", "--model", "nonsense"],
    "unknown other model": ["clips", "--against", "nonsense"],
    "against itself": ["clips", "--against", "seedvr2:tiny", "--against-weights", "{tiny}"],
    "dense against dense": ["clips", "--dense", "--against", "dense"],
    "weights of dense": ["clips", "--against", "dense", "--against-weights", "{tiny}"],
    "weights of nothing": ["clips", "--against-weights", "{tiny}"],
    "a study of one": ["study", "clips"],
    "dense study against dense": ["study", "clips", "--against", "dense", "--dense"],
    "budget and threshold": ["clips", "--budget", "0.5", "--threshold", "0.5"],
    "masks of no threshold": ["masks", "clips", "--threshold", "2"],
    "masks of an unknown model": ["masks", "clips", "--model", "nonsense"],
    "ablation of an unknown model": ["ablation", "clips", "--model", "nonsense"],
    "ablation with nothing to compare": ["ablation", "clips"],
    "ablation of no budgets": ["ablation", "clips", "--budgets"],
    "ablation of a budget of 0": ["ablation", "clips", "--budgets", "0"],
    "out is a file": ["clips", "--out", "text"],
    "scale 9": ["clips", "--scale", "9"],
    "degraded LR clips": ["lq", "--degrade", "real"],
    "bd at 2": ["clips", "--scale", "2", "--degrade", "bd"],
    "no frames": ["clips", "--frames", "0"],
    "results twice": ["clips", "--results", "clips", "lq/../clips"],
    "score of another study": ["score", "stranger.json", "--key", "key.json"],
    "score of a text": ["score", "text", "--key", "key.json"],
    "score of no votes": ["score", "--key", "key.json"],
    "score of nothing": ["score", "nowhere.json", "--key", "key.json"],
}
USAGE = {
    "a study with metrics": ["study", "clips", "--against", "dense", "--metrics", "fidelity"],
    "masks of two": ["masks", "clips", "--against", "dense"],
    "masks of a budget": ["masks", "clips", "--budget", "0.5"],
    "masks of nothing": ["masks"],
    "an ablation of a quality": ["ablation", "clips", "--quality", "0.5"],
    "budgets of a run": ["clips", "--budgets", "0.5"],
    "a score without key": ["score", "votes.json"],
    "a way of before": ["clips", "--masks"],
}


@pytest.mark.parametrize("what", USAGE)
def test_each_evaluation_has_only_its_own_options(
    files: Path, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(files)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as left:
            run(["eval", *USAGE[what]])
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert left.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("what", BAD)
def test_bad_jobs_give_one_sentence(
    files: Path,
    what: str,
    tiny_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """In this process, for speed: `run` returns what the command exits with."""
    arguments = [argument.format(tiny=tiny_file) for argument in BAD[what]]
    if "--model" not in arguments and "score" not in arguments:
        arguments += ["--model", "seedvr2:tiny", "--weights", str(tiny_file)]
    before = sorted(files.rglob("*"))
    monkeypatch.chdir(files)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        code = run(["eval", *arguments])
    finally:
        signal.signal(signal.SIGTERM, handler)
    out, err = capsys.readouterr()
    assert code == 1
    assert err.startswith("skipsr: error: ")
    assert err.count("\n") == 1, err
    assert out == ""
    assert sorted(files.rglob("*")) == before, "files appeared"


def evaluate(
    skipsr: Forks, files: Path, tiny_file: Path, folder: Path, *arguments: object, how: str = "run"
) -> Result:
    result = skipsr(
        "eval", how, "clips", "--model", "seedvr2:tiny", "--weights", tiny_file, "--frames", 5,
        "--device", "cpu", "--dtype", "float32", "--out", folder, *arguments, cwd=files,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert not list(folder.glob(".*"))
    return result


def test_quality(skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path):
    result = evaluate(
        skipsr, files, tiny_file, tmp_path / "out", "--against", "dense", "--metrics", "fidelity",
        "--reconstruct", "--only", "wal", "--threshold", 0.4,
    )  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "index.html", "results.json", "results.md",
    ]  # fmt: skip
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert result.report["means"] == found["means"]
    assert list(found["means"]) == [
        "bicubic", "seedvr2:tiny", "seedvr2:tiny, dense", "reconstruction",
    ]  # fmt: skip
    assert [row["clip"] for row in found["rows"]] == ["walk"] * 4
    assert found["settings"]["eval"]["only"] == "wal"
    assert found["settings"]["runtime"]["weights"] == str(tiny_file)
    assert found["device"]
    assert len(result.errors) == 4  # a line for each row
    count = sum(
        value.numel() for value in load_file(tiny_file).values() if value.is_floating_point()
    )
    names = ["seedvr2:tiny", "seedvr2:tiny, dense"]
    assert found["parameters"] == dict.fromkeys(names, pytest.approx(count, rel=0.01))
    one, other = (found["weights"][name] for name in names)
    assert one == other
    assert len(one) == 12
    assert f"seedvr2:tiny, dense {one}" in (tmp_path / "out" / "results.md").read_text()


def test_other_weights_of_one_name_are_told_apart(
    skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path
):
    weights = tmp_path / "model.safetensors"
    tensors = load_file(tiny_file)
    found: list[str] = []
    for bias in (0.0, 0.5):
        changed = {name: value + bias * name.endswith("bias") for name, value in tensors.items()}
        save_file(changed, weights)
        evaluate(
            skipsr, files, weights, tmp_path / "out", "--metrics", "fidelity", "--only", "walk"
        )
        told = json.loads((tmp_path / "out" / "results.json").read_text())
        found.append(told["weights"]["seedvr2:tiny"])
    assert found[0] != found[1]


def test_the_network_for_the_scale_is_counted(skipsr: Forks, files: Path, tmp_path: Path):
    counts: list[int] = []
    for scale in (2, 4):
        result = skipsr(
            "eval", "run", "clips", "--scale", scale, "--frames", 1, "--only", "walk", "--metrics",
            "fidelity", "--device", "cpu", "--out", tmp_path / "out", cwd=files,
        )  # fmt: skip
        assert result.code == 0, result.err
        told = json.loads((tmp_path / "out" / "results.json").read_text())
        counts.append(told["parameters"]["skipvsr:nano"])
        assert len(told["weights"]["skipvsr:nano"].split()) == 2  # of both networks
    assert counts[0] != counts[1]


@pytest.fixture(scope="module")
def routed_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The other family's tiny network."""
    torch.manual_seed(0)
    backbone = backbones.get("skipvsr")
    path = tmp_path_factory.mktemp("routed") / "model.safetensors"
    return export(backbone.build(backbone.presets["tiny"]), path, {})


LEFT_OUT = {  # what each evaluation is told, and the table or key that names the clip
    "run": (["--metrics", "fidelity"], "results.md"),
    "masks": ([], "masks.md"),
    "study": (["--against", "dense"], "study-key.json"),
    "ablation": (["--metrics", "fidelity", "--budgets", "0.8"], "ablation.md"),
}


@pytest.mark.parametrize("how", LEFT_OUT)
def test_a_broken_clip_is_left_out(
    skipsr: Forks, files: Path, tiny_file: Path, routed_file: Path, tmp_path: Path, how: str
):
    arguments, named_in = LEFT_OUT[how]
    routed = how == "ablation"
    model, weights = ("basicvsr:tiny", routed_file) if routed else ("seedvr2:tiny", tiny_file)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "walk").symlink_to(files / "clips" / "walk")
    (tmp_path / "more" / "torn.mp4").write_bytes(b"no video")
    result = skipsr(
        "eval", how, "more", "--model", model, "--weights", weights, "--frames", 4, *arguments,
        "--device", "cpu", "--dtype", "float32", "--out", "out", cwd=tmp_path,
    )  # fmt: skip
    assert result.code == 1
    if how == "study":
        assert result.out.strip() == "out/study.html"
    else:
        assert result.report["clips"] == 1
        assert list(result.report["faults"]) == ["torn"]
    assert result.errors[0].startswith("torn is left out: more/torn.mp4")
    assert result.errors[-1] == "skipsr: error: 1 of 2 clips left out: torn"
    assert "torn" in (tmp_path / "out" / named_in).read_text()


def test_a_folder_alone_is_a_run():
    assert name_actions(["eval", "clips"]) == ["eval", "run", "clips"]
    assert name_actions(["eval", "--frames", "3", "clips"])[:3] == ["eval", "run", "--frames"]
    for same in (["eval", "masks", "clips"], ["eval", "--help"], ["eval"], ["upscale", "a", "b"]):
        assert name_actions(same) == same


def test_the_same_model_with_other_weights(
    skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path
):
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny_file.read_bytes())
    result = evaluate(
        skipsr, files, tiny_file, tmp_path / "out", "--against", "seedvr2:tiny",
        "--against-weights", other, "--metrics", "fidelity", "--only", "walk",
    )  # fmt: skip
    means = result.report["means"]
    assert list(means) == ["bicubic", "seedvr2:tiny", "seedvr2:tiny, other.safetensors"]
    assert means["seedvr2:tiny"]["psnr_y"] == means["seedvr2:tiny, other.safetensors"]["psnr_y"]


def test_masks(skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path):
    result = evaluate(skipsr, files, tiny_file, tmp_path / "out", "--threshold", 0, how="masks")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "masks.html", "masks.json", "masks.md",
    ]  # fmt: skip
    found = json.loads((tmp_path / "out" / "masks.json").read_text())
    assert found["prediction"] == result.report["prediction"]
    assert found["means"]["predictor"]["swap"]["psnr_rgb"] == 100
    assert len(found["taus"]) == 8
    assert len(found["thresholds"]) == 19
    page = (tmp_path / "out" / "masks.html").read_text()
    assert page.count("<svg") == 4
    assert "http" not in page
    table = (tmp_path / "out" / "masks.md").read_text()
    assert "| predictor | 0.0% |" in table


def test_masks_of_no_model_in_particular(skipsr: Forks, files: Path, tmp_path: Path):
    """Are those of the bundled model that has an autoencoder."""
    common = ("eval", "masks", "clips", "--only", "walk", "--frames", 1, "--device", "cpu")
    found = skipsr(*common, "--out", tmp_path / "out", cwd=files)
    assert found.code == 0, found.err
    assert json.loads((tmp_path / "out" / "masks.json").read_text())["model"] == "seedvr2:nano"
    refused = skipsr(*common, "--model", "skipvsr:nano", "--out", tmp_path / "no", cwd=files)
    assert refused.errors[-1] == (
        "skipsr: error: skipvsr:nano has no autoencoder to look into: "
        "give a diffusion model as --model"
    )


def test_an_ablation(skipsr: Forks, files: Path, routed_file: Path, tmp_path: Path):
    """A variant is known by its folder."""
    (tmp_path / "variant").mkdir()
    (tmp_path / "variant" / "model.safetensors").symlink_to(routed_file)
    out = tmp_path / "out"
    result = skipsr(
        "eval", "ablation", "clips", "--model", "basicvsr:tiny", "--weights", routed_file,
        "--variants", tmp_path / "variant", "--budgets", 0.7, "--frames", 4, "--only", "walk",
        "--metrics", "fidelity", "--device", "cpu", "--dtype", "float32", "--out", out, cwd=files,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert sorted(p.name for p in out.iterdir()) == [
        "ablation.html", "ablation.json", "ablation.md",
    ]  # fmt: skip
    found = json.loads((out / "ablation.json").read_text())
    assert found["settings"]["ablation"] == {"budgets": [0.7]}
    trials = result.report["trials"]
    assert len(trials) == 7 + 2
    by_name = {(trial["weights"], trial["policy"]): trial["means"] for trial in trials}
    for policy in ("dense", "learned"):  # the same weights by another name
        assert by_name["variant", policy] == by_name["basicvsr:tiny", policy]


def test_an_ablation_of_the_bundled_model(skipsr: Forks, files: Path, tmp_path: Path):
    """It has a network for each of two scales, of which that for the clips' scale is compared."""
    for model in ((), ("--model", "skipvsr:nano")):
        result = skipsr(
            "eval", "ablation", "clips", *model, "--budgets", 0.7, "--frames", 3, "--only", "walk",
            "--metrics", "fidelity", "--device", "cpu", "--out", tmp_path / "out", cwd=files,
        )  # fmt: skip
        assert result.code == 0, result.err
        assert {trial["weights"] for trial in result.report["trials"]} == {"skipvsr:nano"}


def test_a_study_and_its_score(skipsr: Forks, files: Path, tiny_file: Path, tmp_path: Path):
    out = tmp_path / "out"
    result = evaluate(skipsr, files, tiny_file, out, "--against", "dense", "--seed", 4, how="study")
    assert result.out.strip() == str(out / "study.html")
    page = (out / "study.html").read_text()
    assert "seedvr2" not in page
    assert "dense" not in page
    key = json.loads((out / "study-key.json").read_text())
    assert (key["a"], key["b"]) == ("seedvr2:tiny", "seedvr2:tiny, dense")
    # a rater who finds B better in every clip
    choice = {"a": "right", "b": "left"}
    votes = {"study": key["study"], "votes": {c: choice[side] for c, side in key["left"].items()}}
    (tmp_path / "votes.json").write_text(json.dumps(votes))
    scored = skipsr("eval", "score", "votes.json", "--key", out / "study-key.json", cwd=tmp_path)
    assert scored.code == 0, scored.err
    total = scored.report["total"]
    assert (total["good"], total["same"], total["bad"], total["score"]) == (0, 0, 2, -1)
    assert total["low"] == -1
    assert -1 < total["high"] < 1
    assert scored.report["clips"]["walk"]["score"] == -1


def test_the_score_of_several_raters(skipsr: Forks, files: Path):
    result = skipsr("eval", "score", "votes.json", "votes.json", "--key", "key.json", cwd=files)
    assert result.code == 0, result.err
    # A is left of walk and right of city: one good, one bad from each rater
    total = result.report["total"]
    assert (total["good"], total["same"], total["bad"], total["score"]) == (2, 0, 2, 0)
    assert total["low"] == pytest.approx(-total["high"])
    assert result.report["raters"] == 2
