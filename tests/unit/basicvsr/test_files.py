"""Files of BasicVSR: all published layouts are read, all else is refused in one sentence."""

import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from skipsr.backbones.basicvsr import weights
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.backbones.basicvsr.upscaler import BasicVSRUpscaler
from skipsr.backbones.basicvsr.weights import kinds, normal_name, normalise
from skipsr.errors import WeightsError
from skipsr.loading import load_networks, load_upscaler
from skipsr.settings import RuntimeSettings
from skipsr.train.run import export
from skipsr.weights.checkpoint_formats import unwrap
from skipsr.weights.identify import identify
from skipsr.weights.load import read_inventory, read_tensors

pytestmark = pytest.mark.usefixtures("toy_preset")
State = dict[str, Tensor]


def without_flow(state: State) -> State:
    return {k: v for k, v in state.items() if not k.startswith("spynet.")}


def flow_alone(state: State) -> State:
    """As SPyNet is published."""
    names = [k for k in state if k.startswith("spynet.basic_module.")]
    assert len(names) == 60
    return {k.removeprefix("spynet."): state[k] for k in names}


def mmediting_names(state: State) -> State:
    def convolution(match: re.Match[str]) -> str:
        return f"{match[1]}.{int(match[2]) // 2}.conv."

    renamed: State = {}
    for name, value in state.items():
        name = re.sub(r"(basic_module\.\d\.basic_module)\.(\d)\.", convolution, name)
        name = re.sub(r"^(backward|forward)_trunk\.", r"\1_resblocks.", name)
        renamed[re.sub(r"^upconv([12])\.", r"upsample\1.upsample_conv.", name)] = value
    return renamed


def write(path: Path, state: State, layout: str) -> Path:
    """A checkpoint as the programs that published such networks write it."""
    other = {k: v + 1 for k, v in state.items()}
    parallel = {f"module.{k}": v for k, v in state.items()}
    generator = {f"generator.{k}": v for k, v in mmediting_names(state).items()}
    beside = {"step_counter": torch.zeros(1), "pixel_loss.weight": torch.ones(1)}
    content = {
        "bare": OrderedDict(state),
        "params": {"params": state},
        "both": {"params": state, "params_ema": other},
        "averaged": {"params_ema": state},
        "parallel": parallel,
        "parallel params": {"params": parallel},
        "mmediting": {
            "meta": {"mmedit_version": "0.8", "epoch": 3, "time": 1.5, "hooks": None},
            "state_dict": OrderedDict(beside | generator),
        },
        "mmediting bare": mmediting_names(state),
        "state_dict": {"epoch": 3, "state_dict": state},
    }[layout]
    torch.save(content, path)
    return path


LAYOUTS = {
    "bare": "bare layout",
    "params": "BasicSR layout, params",
    "both": "BasicSR layout, params; also holds params_ema",
    "averaged": "BasicSR layout, params_ema",
    "parallel": "data-parallel layout",
    "parallel params": "BasicSR layout, params, data-parallel layout",
    "mmediting": "mmediting layout",
    "mmediting bare": "bare layout, mmediting names",
    "state_dict": "state_dict layout",
}


def told(path: Path) -> str:
    """What is said of a file."""
    match = identify(normalise(read_inventory(path)), kinds())
    assert match is not None
    return match.title if match.exact else f"{match.title}: {match.describe()}"


def read(preset: str, source: Path) -> BasicVSR:
    model = load_networks(f"basicvsr:{preset}", source)
    assert isinstance(model, BasicVSR)
    return model


def same(model: BasicVSR, state: State) -> bool:
    found = model.state_dict()
    return all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(dense: State, tmp_path: Path, layout: str):
    path = write(tmp_path / "network.pth", dense, layout)
    assert told(path) == f"basicvsr:toy network ({LAYOUTS[layout]})"
    model = read("toy", path)
    assert same(model, dense)
    assert model.router_forward is None
    assert model.router_backward is None
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_old_and_new_form(dense: State, tmp_path: Path, zipped: bool):
    """Published files of 2021 are often of the form that torch wrote before 1.6."""
    path = tmp_path / "network.pth"
    torch.save({"params": dense}, path, _use_new_zipfile_serialization=zipped)
    assert told(path) == "basicvsr:toy network (BasicSR layout, params)"
    assert same(read("toy", path), dense)


def test_of_both_the_weights_as_trained_are_taken(dense: State, tmp_path: Path):
    assert same(read("toy", write(tmp_path / "network.pth", dense, "both")), dense)


def test_a_safetensors_file(dense: State, tmp_path: Path):
    save_file(dense, tmp_path / "network.safetensors")
    assert told(tmp_path / "network.safetensors") == "basicvsr:toy network (bare layout)"
    assert same(read("toy", tmp_path / "network.safetensors"), dense)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backward_resblocks.main.0.weight", "backward_trunk.main.0.weight"),
        ("forward_resblocks.main.2.29.conv1.bias", "forward_trunk.main.2.29.conv1.bias"),
        ("upsample1.upsample_conv.weight", "upconv1.weight"),
        ("upsample2.upsample_conv.bias", "upconv2.bias"),
        (
            "spynet.basic_module.5.basic_module.4.conv.weight",
            "spynet.basic_module.5.basic_module.8.weight",
        ),
        ("basic_module.0.basic_module.1.conv.bias", "basic_module.0.basic_module.2.bias"),
        ("fusion.weight", "fusion.weight"),
        ("conv_hr.bias", "conv_hr.bias"),
        ("spynet.mean", "spynet.mean"),
        ("spynet.basic_module.5.basic_module.4.weight",) * 2,
        ("forward_trunk.main.2.29.conv1.bias",) * 2,
    ],
)
def test_names_of_mmediting(theirs: str, ours: str):
    assert normal_name(theirs) == ours


def test_a_name_that_is_taken_stays_and_does_not_fit():
    found = normalise({"upconv1.bias": 1, "upsample1.upsample_conv.bias": 2})
    assert found == {"upconv1.bias": 1, "upsample1.upsample_conv.bias": 2}


def test_wrappers_are_only_taken_off_where_they_are_whole():
    entries = {"module.a": 1, "b": 2}
    assert unwrap(entries) == entries
    assert unwrap({}) == {}
    assert unwrap({"params.module.a": 1, "extra": 2}) == {"a": 1}


# files that do not fit


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("less", r"1 missing \(such as conv_hr\.bias\)"),
        ("more", r"1 unexpected \(such as more\.weight\)"),
        (
            "shape",
            r"1 of another shape \(such as fusion\.weight: \(4, 8\) instead of \(4, 8, 1, 1\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(dense: State, tmp_path: Path, change: str, message: str):
    state = dict(dense)
    if change == "less":
        del state["conv_hr.bias"]
    elif change == "more":
        state["more.weight"] = torch.ones(1)
    else:
        state["fusion.weight"] = state["fusion.weight"][:, :, 0, 0]
    path = write(tmp_path / "network.pth", state, "mmediting")
    assert re.search(rf"^basicvsr:toy network \(mmediting layout\): {message}", told(path))
    with pytest.raises(WeightsError, match=rf"network\.pth does not fit basicvsr:toy: .*{message}"):
        read("toy", path)
    with pytest.raises(WeightsError, match=rf"no basicvsr:toy network .*network\.pth .*{message}"):
        read("toy", tmp_path)


def test_a_network_of_another_size(dense: State, tmp_path: Path):
    path = write(tmp_path / "network.pth", dense, "params")
    with pytest.raises(WeightsError, match=r"not fit basicvsr:x4: it is basicvsr:toy network \("):
        read("x4", path)


@pytest.mark.parametrize("name", ["network.pth", "network.safetensors"])
@pytest.mark.parametrize("share", [0, 0.3, 0.999])
def test_truncated_files(dense: State, tmp_path: Path, name: str, share: float):
    path = tmp_path / name
    if path.suffix == ".pth":
        write(path, dense, "params")
    else:
        save_file(dense, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for source in (path, tmp_path):
        with pytest.raises(WeightsError, match=re.escape(name)):
            read("toy", source)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["meta", "params", "beside"])
def test_objects_are_refused_and_not_run(dense: State, tmp_path: Path, where: str, zipped: bool):
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    content = {
        "meta": {"meta": {"config": Bomb(mark)}, "state_dict": dense},
        "params": {"params": dense | {"evil": Bomb(mark)}},
        "beside": dense | {"evil": Bomb(mark)},
    }[where]
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for function in (read_inventory, read_tensors, lambda p: read("toy", p)):
        with pytest.raises(WeightsError, match=r"evil\.pth: .*not loaded"):
            function(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists(), "the bomb is none, so the test above says nothing"


def test_tables_of_something_else_than_tensors_are_left_out(dense: State, tmp_path: Path):
    path = tmp_path / "network.pth"
    optimizer = {"state": {0: {"step": torch.zeros(())}}, "param_groups": [{"lr": 1e-4}]}
    torch.save({"params": dense, "optimizer": optimizer, "iter": 5, "settings": {"a": 1}}, path)
    assert set(read_tensors(path)) == {f"params.{name}" for name in dense}


# folders


@pytest.mark.parametrize(
    ("network", "flow"),
    [
        ("params", "bare"),
        ("mmediting", "params"),
        ("params", "state_dict"),
        ("mmediting", "mmediting bare"),
    ],
)
def test_spynet_beside_a_network_without(dense: State, tmp_path: Path, network: str, flow: str):
    write(tmp_path / "a.pth", without_flow(dense), network)
    write(tmp_path / "b.pth", flow_alone(dense), flow)
    (tmp_path / "readme.txt").write_text("not weights")
    torch.save({"something": torch.ones(1)}, tmp_path / "else.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"")
    assert told(tmp_path / "a.pth") == f"basicvsr:toy network without SPyNet ({LAYOUTS[network]})"
    assert told(tmp_path / "b.pth") == f"basicvsr flow network (SPyNet) ({LAYOUTS[flow]})"
    for source in (tmp_path, tmp_path / "a.pth"):
        found = read("toy", source)
        assert same(found, dense)  # its mean and std with them
        assert found.spynet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


# every two of them together; of layout and precision the other pairs differ in nothing read anew
@pytest.mark.parametrize(
    ("layout", "dtype", "given"),
    [
        ("bare", torch.float16, "folder"),
        ("bare", torch.float32, "file"),
        ("params", torch.bfloat16, "file"),
        ("params", torch.float32, "folder"),
        ("parallel", torch.float16, "file"),
        ("parallel", torch.bfloat16, "folder"),
        ("mmediting", torch.float16, "file"),
        ("mmediting", torch.bfloat16, "folder"),
    ],
)
def test_files_say_which_model_they_are(
    dense: State, tmp_path: Path, layout: str, dtype: torch.dtype, given: str
):
    """In every layout and precision, by name or in a folder with strays."""
    held = {k: v.to(dtype) for k, v in dense.items()}
    path = write(tmp_path / "network.pth", held, layout)
    torch.save({"something": torch.ones(1)}, tmp_path / "else.pt")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 broken")
    source = tmp_path if given == "folder" else path
    runtime = RuntimeSettings(weights=source, device="cpu", dtype="float32")
    upscaler = load_upscaler(runtime=runtime)
    assert upscaler.name == "basicvsr:toy"
    assert isinstance(upscaler, BasicVSRUpscaler)
    assert same(upscaler.model.float(), {k: v.float() for k, v in held.items()})


def test_spynet_with_its_constants(dense: State, tmp_path: Path):
    constants = {"mean": torch.full((1, 3, 1, 1), 0.25), "std": torch.full((1, 3, 1, 1), 0.5)}
    write(tmp_path / "a.pth", without_flow(dense), "params")
    write(tmp_path / "b.pth", flow_alone(dense) | constants, "bare")
    assert told(tmp_path / "b.pth").startswith("basicvsr flow network (SPyNet) with mean and std (")
    found = read("toy", tmp_path).spynet
    assert torch.equal(found.mean, constants["mean"])
    assert torch.equal(found.std, constants["std"])


def test_a_network_keeps_its_own_spynet(dense: State, tmp_path: Path):
    write(tmp_path / "a.pth", dense, "params")
    write(tmp_path / "b.pth", {k: v + 1 for k, v in flow_alone(dense).items()}, "params")
    assert same(read("toy", tmp_path), dense)


def test_a_network_without_spynet_asks_for_it(dense: State, tmp_path: Path):
    path = write(tmp_path / "a.pth", without_flow(dense), "params")
    for source in (path, tmp_path):
        with pytest.raises(WeightsError, match=r"no .*flow network \(SPyNet\) for a\.pth there"):
            read("toy", source)


def test_two_files_that_could_be_meant_are_refused(dense: State, model: BasicVSR, tmp_path: Path):
    write(tmp_path / "a.pth", dense, "params")
    export(model, tmp_path / "b.safetensors", {})
    with pytest.raises(WeightsError, match=r"a\.pth and b\.safetensors are each a basicvsr:toy"):
        read("toy", tmp_path)
    (tmp_path / "b.safetensors").unlink()
    write(tmp_path / "a.pth", without_flow(dense), "params")
    for name in "cd":
        write(tmp_path / f"{name}.pth", flow_alone(dense), "params")
    with pytest.raises(WeightsError, match=r"c\.pth and d\.pth are each .*\(SPyNet\)"):
        read("toy", tmp_path)


def test_folders_without_a_network(dense: State, tmp_path: Path):
    with pytest.raises(WeightsError, match="no basicvsr:toy network there; it holds no weight"):
        read("toy", tmp_path)
    write(tmp_path / "flow.pth", flow_alone(dense), "params")
    with pytest.raises(WeightsError, match=r"it holds flow\.pth \(basicvsr flow network"):
        read("toy", tmp_path)
    write(tmp_path / "network.pth", dense, "params")
    with pytest.raises(WeightsError, match=r"no basicvsr:x4 network .*network\.pth \(basicvsr:toy"):
        read("x4", tmp_path)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(WeightsError, match=r"nowhere\.pth: no such file or folder"):
        read("toy", tmp_path / "nowhere.pth")


def test_kinds_have_names_and_contents_of_their_own():
    names = [kind.name for kind in kinds()]
    assert len(set(names)) == len(names)
    assert len({frozenset(kind.tensors.items()) for kind in kinds()}) == len(names)
    assert {f"basicvsr:{preset} network" for preset in weights.PRESETS} <= set(names)
