"""Two trainings in one file, and what `detail` mixes of them."""

import importlib.util
from pathlib import Path

import pytest
import safetensors.torch
import torch
from made_models import make_clip, perturb

from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.planes import upsample_bicubic
from skipsr.cli import main
from skipsr.clip import Clip
from skipsr.errors import SettingsError
from skipsr.loading import identify_file, load_networks, load_upscaler
from skipsr.settings import RuntimeSettings, SkipSettings
from skipsr.strength import Strength
from skipsr.train.run import export

CLIP = Clip(0.25 + make_clip(3, 24, 32).frames / 2)  # nothing is clamped
CPU = torch.device("cpu")
SCRIPT = Path(__file__).parents[3] / "scripts" / "add_detail.py"


def trained(folder: Path, name: str, seed: int) -> Path:
    torch.manual_seed(seed)
    model = BasicVSR(PRESETS["nano"])
    model.router_backward = model.router_forward = None
    perturb(model, spread=0.02)
    metadata = {"model": "skipvsr:nano"}
    return export(model.requires_grad_(False), folder / f"{name}.safetensors", metadata)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trainings")
    found = {name: trained(folder, name, i) for i, name in enumerate(("faithful", "crisp"))}
    spec = importlib.util.spec_from_file_location("add_detail", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    joined, model = script.join(found["faithful"], found["crisp"], None)
    found["both"] = folder / "joined" / "both.safetensors"
    found["both"].parent.mkdir()
    safetensors.torch.save_file(joined, found["both"], metadata={"model": model})
    return found


def result(weights: Path, detail: float | None = None) -> torch.Tensor:
    options = {} if detail is None else {"detail": detail}
    runtime = RuntimeSettings(weights=weights, device="cpu")
    upscaler = load_upscaler("skipvsr:nano", SkipSettings(dense=True), runtime, options)
    return upscaler.upscale(CLIP, (96, 128)).clip.frames


def test_detail_0_is_the_faithful_training(files: dict[str, Path]):
    faithful = result(files["faithful"], 0.0)
    assert torch.equal(result(files["both"], 0.0), faithful)
    assert not torch.allclose(faithful, result(files["crisp"], 0.0), atol=1e-3)


@pytest.mark.parametrize("detail", [0.2, 0.5])
def test_below_the_middle_the_faithful_training_is_drawn_more_strongly(
    files: dict[str, Path], detail: float
):
    strength = Strength("skipvsr:nano", detail)(CLIP.frames, CPU)
    assert strength > 1.05
    faithful = result(files["faithful"], 0.0)
    stronger = torch.lerp(upsample_bicubic(CLIP.frames), faithful, strength)
    for weights in ("both", "faithful"):
        found = result(files[weights], detail)
        torch.testing.assert_close(found, stronger, atol=1e-5, rtol=0, msg=weights)


def test_the_middle_is_the_default(files: dict[str, Path]):
    assert torch.equal(result(files["both"]), result(files["both"], 0.5))


def test_beyond_the_crisp_training_is_mixed_in(files: dict[str, Path]):
    both = load_networks("skipvsr:nano", files["both"])
    ends = [load_networks("skipvsr:nano", files[name]) for name in ("faithful", "crisp")]
    assert isinstance(both, BasicVSR)
    both.blend(0.75)
    first, second = (dict(end.named_parameters()) for end in ends)
    for name, value in both.named_parameters():
        torch.testing.assert_close(value, torch.lerp(first[name], second[name], 0.3), msg=name)


def test_what_is_trained_on_is_the_faithful_one(files: dict[str, Path]):
    both, faithful = (load_networks("skipvsr:nano", files[n]) for n in ("both", "faithful"))
    found, expected = both.state_dict(), faithful.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_file_is_known(files: dict[str, Path]):
    match = identify_file(files["both"])
    assert match is not None
    assert match.exact
    assert match.kind == "basicvsr:nano network with detail"


def test_weights_of_one_training_end_at_the_middle(files: dict[str, Path]):
    with pytest.raises(SettingsError, match=r"`detail` ends at 0\.5 here"):
        result(files["faithful"], 0.6)


def test_a_detail_out_of_range_is_refused(small_video: Path, tmp_path: Path, capfd):
    assert main.run(["upscale", str(small_video), str(tmp_path / "o.mp4"), "--detail", "1.5"]) != 0
    assert "--detail 1.5 is outside 0 to 1" in capfd.readouterr().err
    assert not (tmp_path / "o.mp4").exists()
