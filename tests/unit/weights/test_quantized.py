"""Files in eight and four bits: known for what they are, loaded as they are stored, and how far
from float32 they come out; unknown kinds refused by name."""

import json
import struct
import sys
from dataclasses import replace
from functools import cache
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import quantized_files as made
import torch
from live_bytes import counting
from made_models import LIKE_3B, LIKE_7B, PUBLISHED, make_model, random, write_parts
from pretended_card import CARD, on_card, pretended_card
from safetensors.torch import load_file, save_file
from torch import nn

from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.memory_law import weights_of
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import WeightsError
from skipsr.loading import (
    find_model,
    identify_file,
    load_networks,
    load_upscaler,
    planned_limits,
)
from skipsr.settings import RuntimeSettings
from skipsr.skipping.route import Route
from skipsr.weights import quantized
from skipsr.weights.block_scales import block_scaled
from skipsr.weights.ggml import DECODERS
from skipsr.weights.load import load_strictly, read_inventory, read_stored, read_tensors
from skipsr.weights.place import Placement
from skipsr.weights.quantized import (
    QuantizedLinear,
    QuantizedTensor,
    fp8,
    int8,
    opened,
    parameter_count,
    quantized_bytes,
)

gguf = pytest.importorskip("gguf")
CPU = torch.device("cpu")
WIDE = {"width": 256, "heads": 4, "head_dim": 64}  # rows of whole blocks in every format
WIDE_CONFIGS = {
    name: replace(PUBLISHED[name], dit=replace(dit, **WIDE))
    for name, dit in (("3b", LIKE_3B), ("7b", LIKE_7B))
}

# format -> writer, file's name, what it is called; relative errors against float32: the most of the
# velocity, and that of the median matrix, which is noise that was rounded
FORMATS = {
    "fp8 plain": (made.fp8_plain, "a.safetensors", "fp8 without scales", 0.09, 0.0268),
    "fp8 marked": (made.fp8_marked, "a.safetensors", "fp8 with scales", 0.06, 0.0264),
    "fp8 in metadata": (made.fp8_in_metadata, "a.safetensors", "fp8 with scales", 0.06, 0.0261),
    "fp8 older": (made.fp8_older, "a.safetensors", "fp8 with scales", 0.06, 0.0264),
    "int8": (made.int8_tensorwise, "a.safetensors", "int8", 0.04, 0.0103),
    "int8 convrot": (made.int8_convrot, "a.safetensors", "int8 with ConvRot", 0.018, 0.0070),
    "mxfp8": (made.mxfp8, "a.safetensors", "mxfp8", 0.06, 0.0262),
    "nvfp4": (made.nvfp4, "a.safetensors", "nvfp4", 0.25, 0.095),
    "Q8_0": (made.gguf_q8_0, "a.gguf", "GGUF Q8_0", 0.013, 0.0053),
    "Q4_K": (made.gguf_q4_k, "a.gguf", "GGUF Q4_K", 0.25, 0.078),  # by plain rounding
}


@cache
def made_wide(name: str) -> SeedVR2:
    """Do not change it."""
    return make_model(WIDE_CONFIGS[name])


@pytest.fixture(params=["3b", "7b"])
def wide(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, SeedVR2]:
    """The published models as small as their files' blocks allow."""
    for name, config in WIDE_CONFIGS.items():
        monkeypatch.setitem(PRESETS, name, config)
    return request.param, made_wide(request.param)


def write(wide: tuple[str, SeedVR2], folder: Path, form: str) -> Path:
    """A folder's files with the transformer in that format."""
    writer, name, *_ = FORMATS[form]
    write_parts(wide[1], folder).unlink()
    writer(dict(wide[1].dit.state_dict()), folder / name)
    return folder / name


def load(source: Path, name: str, dtype: str = "float32") -> SeedVR2:
    runtime = RuntimeSettings(weights=source, device="cpu", dtype=dtype)  # type: ignore[arg-type]
    return load_upscaler(f"seedvr2:{name}", runtime=runtime).model  # type: ignore[attr-defined]


def velocity(model: SeedVR2) -> torch.Tensor:
    route = Route.dense((2, 4, 4))
    noisy, base = random(2, 8, 8, 4), random(2, 8, 8, 4, seed=1)
    with torch.inference_mode():
        return model.velocity(noisy, base, torch.tensor(1000.0), route)


def relative(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.float() - true).norm() / true.norm())


@pytest.mark.parametrize("form", FORMATS)
def test_files_are_known_loaded_as_stored_and_come_out_near(
    wide: tuple[str, SeedVR2], tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
):
    name, model = wide
    *_, words, far, matrix = FORMATS[form]
    file = write(wide, tmp_path, form)
    match = identify_file(file)
    assert match is not None
    assert match.exact
    assert match.title == f"seedvr2:{name} transformer ({words})"

    found = load(file, name)
    assert ("loses quality" in caplog.text) == ("without" in words)
    layers = {k: m for k, m in found.dit.named_modules() if isinstance(m, QuantizedLinear)}
    linear = {k: m for k, m in model.dit.named_modules() if isinstance(m, nn.Linear)}
    stored = {k for k, v in read_stored(file).items() if isinstance(v, QuantizedTensor)}
    bare = {k.removeprefix("model.diffusion_model.").removesuffix(".weight") for k in stored}
    assert layers.keys() == bare & linear.keys()
    assert len(layers) > 0.7 * len(linear)
    errors = [relative(m.quantized.dequantize(), linear[k].weight) for k, m in layers.items()]
    assert sorted(errors)[len(errors) // 2] == pytest.approx(matrix, rel=0.04)
    assert relative(velocity(found), velocity(model)) < far


@pytest.mark.parametrize(
    ("wide", "form"), list(zip(cycle(("3b", "7b")), FORMATS, strict=False)), indirect=["wide"]
)
def test_what_is_held_is_what_the_file_holds(wide: tuple[str, SeedVR2], tmp_path: Path, form: str):
    """At either precision: no matrix that was stored in eight bits has a copy in another."""
    file = write(wide, tmp_path, form)
    for dtype in ("float32", "bfloat16"):
        dit = load(file, wide[0], dtype).dit
        quantised = [m for m in dit.modules() if isinstance(m, QuantizedLinear)]
        numbers = sum(torch.Size(m.quantized.shape).numel() for m in quantised)
        held = sum(part.nbytes for m in quantised for part in m.quantized.stored)
        bits = {"Q8_0": 8.5, "Q4_K": 4.5, "mxfp8": 8.25, "nvfp4": 4.5}.get(form, 8)
        assert held == pytest.approx(numbers * bits / 8, rel=0.02)
        plain = sum(v.nbytes for v in (*dit.parameters(), *dit.buffers())) - held
        assert quantized_bytes(dit) == held + plain
        assert held + plain < 1.15 * file.stat().st_size + (plain if dtype == "float32" else 0)
    assert quantized_bytes(wide[1].dit) is None


@pytest.mark.parametrize("form", ["fp8 marked", "Q4_K"])
def test_loading_opens_one_matrix_at_a_time(
    wide: tuple[str, SeedVR2], tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
):
    """None while it loads but those of no linear layer, each once per call when it runs."""
    opened: list[tuple[int, ...]] = []
    original = QuantizedTensor.dequantize

    def counted(self: QuantizedTensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        opened.append(self.shape)
        return original(self, dtype)

    monkeypatch.setattr(QuantizedTensor, "dequantize", counted)
    model = load(write(wide, tmp_path, form), wide[0])
    assert opened == []
    velocity(model)
    assert len(opened) >= sum(isinstance(m, QuantizedLinear) for m in model.dit.modules())


def test_no_precision_of_a_network_touches_what_is_stored():
    weight = int8(torch.full((2, 3), 7, dtype=torch.int8), torch.tensor(0.5))
    network = nn.Sequential(nn.Linear(3, 2))
    load_strictly(network, {"0.weight": weight, "0.bias": torch.ones(2)}, "toy")
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        Placement(device=CPU, dtype=dtype).put(network)
        layer = network[0]
        assert isinstance(layer, QuantizedLinear)
        assert layer.quantized.stored[0].dtype == torch.int8
        assert torch.equal(network(torch.ones(3, dtype=dtype)).float(), torch.full((2,), 11.5))


def test_training_gets_plain_layers(wide: tuple[str, SeedVR2], tmp_path: Path):
    file = write(wide, tmp_path, "fp8 marked")
    networks = load_networks(f"seedvr2:{wide[0]}", file)
    assert networks.state_dict().keys() == {
        k for k in wide[1].state_dict() if not k.startswith(("predictor.", "text.negative"))
    }
    assert {p.dtype for p in networks.parameters()} == {torch.float32}


def test_frequencies_that_were_rounded_to_eight_bits_are_made_exact(
    wide: tuple[str, SeedVR2], tmp_path: Path
):
    file = write(wide, tmp_path, "fp8 plain")
    assert torch.equal(load(file, wide[0]).dit.frequencies, wide[1].dit.frequencies)
    state = load_file(file)
    for name in state:
        if name.endswith("freqs"):
            state[name] = (state[name].float() / 2).to(made.E4M3)
    save_file(state, file)  # of another design: as they are in the file
    found = load(file, wide[0]).dit.frequencies
    assert relative(found, wide[1].dit.frequencies / 2) < 0.04


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_prefixes(wide: tuple[str, SeedVR2], tmp_path: Path, prefix: str):
    state = dict(wide[1].dit.state_dict())
    write_parts(wide[1], tmp_path).unlink()
    made.fp8_marked(state, tmp_path / "a.safetensors", prefix)
    made.gguf_q8_0(state, tmp_path / "b.gguf", prefix)
    for file in (tmp_path / "a.safetensors", tmp_path / "b.gguf"):
        load(file, wide[0])


def test_a_manifest_stays_strict(wide: tuple[str, SeedVR2], tmp_path: Path):
    """Neither a layer less, nor a scale of a layer that is not there."""
    file = write(wide, tmp_path, "fp8 marked")
    whole, file = load_file(file), tmp_path / "changed.safetensors"  # the first is still mapped
    less = {k: v for k, v in whole.items() if not k.startswith("vid_out.proj")}
    save_file(less, file)
    with pytest.raises(WeightsError, match=r"but 2 missing \(such as vid_out.proj.bias\)"):
        load(file, wide[0])
    save_file(whole | {"nothing.weight_scale": torch.ones(())}, file)
    with pytest.raises(WeightsError, match=r"1 unexpected \(such as nothing.weight_scale\)"):
        load(file, wide[0])


# single tensors


TURNED = [
    [67, -73, 106, 8, 96, 77, -60, 36, 15, 116, -26, 19, -46, -118, 51, -86],
    [29, -19, 127, 71, 94, -83, 109, 82, 52, 79, -18, -68, 122, 23, 9, 65],
]
TURNED_BACK = {
    4: [
        [23.0, -26.0, 63.5, -6.5, 19.25, 67.25, -1.25, -10.75, 21.5, 44.0, -27.0, 23.5, -6.75,
         -75.25, 9.25, -26.75],
        [8.25, -5.75, 30.75, 18.75, 4.75, -2.0, 46.0, 1.75, 22.625, 10.125, -14.125, -7.375,
         11.125, 25.125, 21.625, -3.125],
    ],
    16: [
        [35.25, 80.25, 13.0, 16.5, 7.0, -39.0, 49.25, -33.75, 9.25, -62.25, 23.5, 0.5, 5.5, 31.0,
         -41.25, -3.75],
        [12.25, -11.375, 20.5, 8.125, 0.75, 3.625, 56.25, 12.375, 18.625, 15.75, -3.875, 3.25,
         15.125, 19.5, 11.375, -13.75],
    ],
}  # fmt: skip


@pytest.mark.parametrize("group", TURNED_BACK)
def test_turned_columns_are_turned_back_as_their_writer_turned_them(group: int):
    """Numbers of comfy-kitchen 0.2.40, which writes and reads such files for ComfyUI."""
    codes = torch.tensor(TURNED, dtype=torch.int8)
    found = int8(codes, torch.tensor([[0.5], [0.25]]), group).dequantize()
    assert torch.equal(found, torch.tensor(TURNED_BACK[group]))


def test_what_the_metadata_says_of_a_layer_counts(tmp_path: Path):
    path, scale = tmp_path / "a.safetensors", torch.tensor([0.5, 0.25])
    words = {"l": {"format": "int8_tensorwise", "convrot": True, "convrot_groupsize": 4}}
    tensors = {"l.weight": torch.tensor(TURNED, dtype=torch.int8), "l.weight_scale": scale}
    save_file(tensors, path, {"_quantization_metadata": json.dumps({"layers": words})})
    assert torch.equal(read_tensors(path)["l.weight"], torch.tensor(TURNED_BACK[4]))


PLACES = [(0, 3), (0, 50), (1, 95), (31, 40), (32, 20), (70, 63), (127, 2), (128, 35), (159, 94)]
AT_PLACES = {
    "nvfp4": [0.75, -0.8125, -0.0859375, 4.5, 5.5, -4.5, -0.328125, 12.0, -11.25],
    "mxfp8": [13 / 2**20, 3.5, 9 / 2**14, 16384.0, 3 / 2**7, 72.0, 3.5, 26.0, 20.0],
}  # fmt: skip


def filled(rows: int, columns: int, least: int, beyond: int) -> torch.Tensor:
    return (torch.arange(rows * columns) * 7 % (beyond - least) + least).byte().view(rows, columns)


@pytest.mark.parametrize("kind", AT_PLACES)
def test_blocks_are_scaled_as_comfy_kitchen_scales_them(kind: str):
    """Numbers of 0.2.40, with as many rows and blocks as fill no tile."""
    if kind == "nvfp4":
        codes, scales = filled(160, 48, 0, 256), filled(256, 8, 40, 90).view(made.E4M3)
        found = block_scaled(kind, codes, scales, torch.tensor(0.5))
    else:
        codes, scales = filled(160, 96, 0, 120).view(made.E4M3), filled(256, 4, 115, 135)
        found = block_scaled(kind, codes, scales, None)
    numbers = found.dequantize()
    assert numbers.shape == (160, 96)
    assert [float(numbers[place]) for place in PLACES] == AT_PLACES[kind]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q5_K", "Q6_K"])
def test_blocks_are_opened_to_the_numbers_of_the_library(tmp_path: Path, kind: str):
    """Any bytes are a block; scales of plain sizes."""
    form = gguf.GGMLQuantizationType[kind]
    _, size = gguf.GGML_QUANT_SIZES[form]
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 256, (6, 2 * size), np.uint8)
    halves = {"Q8_0": (0,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind]
    for block in (0, size):
        for at in halves:
            value = generator.normal(0, 0.1, (6, 1)).astype(np.float16)
            blocks[:, block + at : block + at + 2] = value.view(np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "seedvr")
    writer.add_tensor("x", blocks, raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_tensors(tmp_path / "a.gguf")["x"]
    expected = gguf.quants.dequantize(blocks, form)
    assert found.shape == expected.shape
    assert np.allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_a_shape_beside_the_tensor_is_the_one_that_counts(tmp_path: Path):
    values = np.arange(4 * 96, dtype=np.float32)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "seedvr")
    writer.add_array("comfy.gguf.orig_shape.x", [4, 96])
    writer.add_tensor("x", values.reshape(12, 32))
    writer.add_tensor("y", values.reshape(8, 48).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_inventory(tmp_path / "a.gguf") == {"x": (4, 96), "y": (8, 48)}
    assert torch.equal(
        read_tensors(tmp_path / "a.gguf")["x"], torch.from_numpy(values).reshape(4, 96)
    )


def some_matrices() -> dict[str, QuantizedTensor]:
    """16 rows of 512 numbers of each kind; blocks of GGUF of arbitrary bytes, but tame scales."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (16, 512), generator=generator, dtype=torch.int8)
    scale = torch.rand(16, 1, generator=generator) / 100
    found = {
        "fp8": fp8(codes.float().to(made.E4M3), scale),
        "fp8 without": fp8(codes.float().to(made.E4M3), None),
        "int8": int8(codes, scale[0]),
        "int8 with ConvRot": int8(codes, scale, rotation=256),
    }
    scales = torch.randint(100, 120, (128, 32), generator=generator).to(torch.uint8)
    found["mxfp8"] = block_scaled(
        "mxfp8", codes.float().to(made.E4M3), scales[:, :16].contiguous(), None
    )
    found["nvfp4"] = block_scaled(
        "nvfp4", codes[:, :256].contiguous().view(torch.uint8), scales, scale[0, 0]
    )
    for kind, decode in DECODERS.items():
        size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
        blocks = torch.randint(0, 20, (16, 512 // size[0] * size[1]), generator=generator)
        found[kind] = QuantizedTensor((16, 512), (blocks.to(torch.uint8),), decode)
    return found


@pytest.mark.parametrize("kind", some_matrices())
def test_matrices_are_opened_some_rows_at_a_time(kind: str, monkeypatch: pytest.MonkeyPatch):
    """Which are the same, and take little beside what they become."""
    weight = some_matrices()[kind]
    whole = weight.dequantize(torch.bfloat16)
    monkeypatch.setattr(quantized, "_TOGETHER", 3 * whole.shape[1])  # does not divide the rows
    assert torch.equal(weight.dequantize(torch.bfloat16), whole)
    rows = 2048 // len(whole)
    stored = (
        part.repeat(rows, *[1] * (part.ndim - 1)) if part.numel() > 1 else part
        for part in weight.stored
    )
    there = tuple(part.to("meta") for part in stored)
    many = QuantizedTensor((2048, whole.shape[1]), there, weight.decode)
    with counting() as live:
        opened = many.dequantize(torch.bfloat16)
    assert live.peak < 1.3 * opened.nbytes


@pytest.mark.parametrize("kind", some_matrices())
def test_on_a_card_matrices_are_opened_there_and_nobody_waits(
    kind: str, monkeypatch: pytest.MonkeyPatch
):
    weight = some_matrices()[kind]
    network = nn.Sequential(nn.Linear(512, 16, bias=False))
    load_strictly(network, {"0.weight": weight}, "toy")
    x = random(3, 512)
    expected = x @ weight.dequantize().T
    with pretended_card(monkeypatch) as card:
        network.to(CARD)
        there = on_card(x)
        card.uploads = 0
        found = network(there)
        assert (found.device, card.waits.total(), card.uploads) == (CARD, 0, 0)
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-4)


# refusals


def say(**words: object) -> torch.Tensor:
    return torch.tensor(list(json.dumps(words).encode()), dtype=torch.uint8)


BYTES, ONE = torch.zeros(4, 8, dtype=torch.uint8), torch.ones(())
CODES, FP8 = BYTES.view(torch.int8), BYTES.view(torch.float8_e4m3fn)
REFUSED = {
    "asym_w4a8_int8": {
        "weight": BYTES, "weight_scale": FP8, "comfy_quant": say(format="asym_w4a8_int8"),
    },
    "nvfp4 without the scales that it needs": {
        "weight": BYTES, "weight_scale": torch.zeros(128, 4, dtype=torch.uint8),
        "comfy_quant": say(format="nvfp4"),
    },
    "mxfp8 without the scales that it needs": {
        "weight": FP8, "weight_scale": BYTES, "comfy_quant": say(format="mxfp8"),
    },
    "float8_e4m3fn_blockwise": {
        "weight": FP8, "weight_scale": ONE, "comfy_quant": say(format="float8_e4m3fn_blockwise"),
    },
    "F8_E5M2": {"weight": BYTES.view(torch.float8_e5m2)},
    "int8 without a word on its kind": {"weight": CODES, "weight_scale": ONE},
    "int8_tensorwise turned in groups of 6": {
        "weight": CODES, "weight_scale": ONE,
        "comfy_quant": say(format="int8_tensorwise", convrot=True, convrot_groupsize=6),
    },
    "float8_e4m3fn with scales of blocks": {
        "weight": FP8, "weight_scale": torch.ones(4, 2), "comfy_quant": say(format="float8_e4m3fn"),
    },
    "U8": {"weight": BYTES},
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_other_kinds_are_refused_by_name(tmp_path: Path, kind: str):
    path = tmp_path / "a.safetensors"
    save_file({f"layer.{k}": v.clone() for k, v in REFUSED[kind].items()}, path)
    for read in (read_inventory, read_tensors):
        with pytest.raises(WeightsError, match=f"layer.weight is stored as {kind}, which is not"):
            read(path)


def test_words_that_cannot_be_read(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_file({"l.weight": FP8, "l.comfy_quant": torch.full((3,), 9, dtype=torch.uint8)}, path)
    with pytest.raises(WeightsError, match="what it says of its quantised layers cannot be read"):
        read_inventory(path)
    save_file({"l.weight": FP8}, path, {"_quantization_metadata": "[1]"})
    with pytest.raises(WeightsError, match="what it says of its quantised layers cannot be read"):
        read_inventory(path)


def test_other_formats_of_gguf_are_refused_by_name(tmp_path: Path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "seedvr")
    form = gguf.GGMLQuantizationType.Q4_0
    writer.add_tensor("x", gguf.quants.quantize(np.ones((2, 32), np.float32), form), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WeightsError, match=r"x is stored as Q4_0, .* of GGUF Q8_0, Q4_K, Q5_K, Q6"):
        read_inventory(tmp_path / "a.gguf")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.99])
def test_a_truncated_gguf_file_is_refused(wide: tuple[str, SeedVR2], tmp_path: Path, share: float):
    file = write(wide, tmp_path, "Q8_0")
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match=r"a\.gguf: not a readable GGUF file; it is damaged"):
        read_inventory(file)


@pytest.mark.parametrize(
    "array", [(4, 1 << 20), (9, 1) * 2000], ids=["longer than the file", "arrays in arrays"]
)
def test_nonsense_in_a_gguf_header(tmp_path: Path, array: tuple[int, ...]):
    """The library goes on where the file has ended, for as long as it says."""
    start = struct.pack("<IQQQcI", 3, 0, 1, 1, b"k", 9)
    lists = b"".join(struct.pack("<IQ", *array[i : i + 2]) for i in range(0, len(array), 2))
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + start + lists)
    with pytest.raises(WeightsError, match=r"a\.gguf: not a readable GGUF file"):
        read_inventory(tmp_path / "a.gguf")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(WeightsError, match=r'a\.gguf: needs gguf .* pip install "skipsr\[gguf\]"'):
        read_inventory(tmp_path / "a.gguf")


def test_a_file_with_one_block_in_float16_loads(wide: tuple[str, SeedVR2], tmp_path: Path):
    """As the published 7B in fp8 whose last block is not: frequencies are rounded in two ways."""
    name, model = wide
    write_parts(model, tmp_path).unlink()
    state = model.dit.state_dict()
    last = f"blocks.{model.config.dit.layers - 1}."
    save_file(
        {k: v.half() if k.startswith(last) else v.to(made.E4M3) for k, v in state.items()},
        tmp_path / "a.safetensors",
    )
    loaded = load_upscaler(
        f"seedvr2:{name}", runtime=RuntimeSettings(weights=tmp_path, device="cpu")
    )
    assert isinstance(loaded, SeedVR2Upscaler)
    found = dict(loaded.model.dit.named_buffers())
    exact = dict(model.dit.named_buffers())
    for key in exact:
        assert torch.equal(found[key], exact[key])
    forms = {type(layer) for k, layer in loaded.model.dit.named_modules() if k.endswith("proj_in")}
    assert forms == {nn.Linear, QuantizedLinear}


def test_frequencies_of_float16_files_are_exact(wide: tuple[str, SeedVR2], tmp_path: Path):
    name, model = wide
    write_parts(model, tmp_path, dtype=torch.float16)
    loaded = load_upscaler(
        f"seedvr2:{name}", runtime=RuntimeSettings(weights=tmp_path, device="cpu")
    )
    assert isinstance(loaded, SeedVR2Upscaler)
    exact = dict(model.dit.named_buffers())
    for name, buffer in loaded.model.dit.named_buffers():
        assert torch.equal(buffer, exact[name])


def test_matrices_are_opened_once_for_all_tokens(monkeypatch: pytest.MonkeyPatch):
    layer = QuantizedLinear(fp8(random(8, 16).to(made.E4M3), torch.tensor(0.5)), None)
    times: list[torch.dtype] = []
    decode = QuantizedTensor.dequantize

    def count(self: QuantizedTensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        times.append(dtype)
        return decode(self, dtype)

    monkeypatch.setattr(QuantizedTensor, "dequantize", count)
    x = random(6, 16)
    whole = layer(x)
    with opened(nn.Sequential(layer), x.dtype):
        parts = [layer(part) for part in x.split(2)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(layer(x), whole)
    assert len(times) == 3


def test_fp8_is_read_where_its_type_is_unknown(monkeypatch: pytest.MonkeyPatch):
    """By a table of its 256 numbers, as on Apple's GPUs."""
    weight = fp8(torch.arange(256, dtype=torch.uint8).view(made.E4M3).view(16, 16), None)
    exact = weight.dequantize()
    monkeypatch.setattr(quantized, "_WITH_FP8", ())
    assert torch.equal(weight.dequantize().nan_to_num(7), exact.nan_to_num(7))


@pytest.mark.parametrize("form", ["nvfp4", "Q4_K"])
def test_a_plan_without_loading_counts_the_file(
    wide: tuple[str, SeedVR2], tmp_path: Path, form: str
):
    file, config = write(wide, tmp_path, form), WIDE_CONFIGS[wide[0]]
    name, limits = planned_limits("auto", "cuda", "auto", file)
    assert name == f"seedvr2:{wide[0]}"
    assert limits.footprint._weights == weights_of(config, 2, file.stat().st_size)
    _, limits = planned_limits(name, "cuda", "auto")
    assert limits.footprint._weights == weights_of(config, 2)


def test_a_plan_counts_the_file_of_its_own_model(wide: tuple[str, SeedVR2], tmp_path: Path):
    name, _ = wide
    other = "7b" if name == "3b" else "3b"
    for each, form in ((name, "fp8 marked"), (other, "Q8_0")):
        (tmp_path / each).mkdir()
        file = write((each, made_wide(each)), tmp_path / each, form)
        file.rename(tmp_path / f"{each}{file.suffix}")
    runtime = RuntimeSettings(weights=tmp_path, device="cpu")
    for each, suffix in ((name, "safetensors"), (other, "gguf")):
        model = find_model(f"seedvr2:{each}", runtime)
        assert model._stored == (tmp_path / f"{each}.{suffix}").stat().st_size
    (tmp_path / f"{name}.safetensors").unlink()
    save_file(
        {k: v.half() for k, v in made_wide(name).dit.state_dict().items()},
        tmp_path / "a.safetensors",
    )
    assert find_model(f"seedvr2:{name}", runtime)._stored is None


def test_parameters_of_a_quantised_matrix_are_counted():
    matrix = fp8(random(8, 16).to(made.E4M3), torch.tensor(0.5))
    layers = nn.Sequential(QuantizedLinear(matrix, nn.Parameter(torch.zeros(8))), nn.Linear(8, 2))
    assert parameter_count(layers) == 8 * 16 + 8 + 8 * 2 + 2
