"""Files of quantised networks as others write them: matrices by each layout's own rule."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

State = Mapping[str, Tensor]
E4M3 = torch.float8_e4m3fn


def matrices(state: State, columns: int = 1) -> list[str]:
    """Names of what such files quantise; `columns`: what a row must divide into."""
    return [k for k, v in state.items() if v.ndim == 2 and v.shape[1] % columns == 0]


def _halves(state: State) -> dict[str, Tensor]:
    return {name: value.half() for name, value in state.items()}


def _words(**words: object) -> Tensor:
    return torch.tensor(list(json.dumps(words).encode()), dtype=torch.uint8)


def fp8_plain(state: State, path: Path) -> None:
    """Every tensor rounded as it is."""
    save_file({k: v.to(E4M3) for k, v in state.items()}, path)


def _scaled(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().max() / 448
    return (weight / scale).to(E4M3), scale


def fp8_marked(state: State, path: Path, prefix: str = "") -> None:
    """A scale for each matrix, and a tensor of JSON that says so."""
    found = _halves(state)
    for name in matrices(state):
        layer = name.removesuffix(".weight")
        found[name], found[f"{layer}.weight_scale"] = _scaled(state[name])
        found[f"{layer}.comfy_quant"] = _words(format="float8_e4m3fn")
        found[f"{layer}.input_scale"] = torch.ones(())
    save_file({prefix + k: v for k, v in found.items()}, path)


def fp8_in_metadata(state: State, path: Path) -> None:
    """The words in the file's metadata, a scale for each row."""
    found, said = _halves(state), dict[str, object]()
    for name in matrices(state):
        scale = state[name].abs().amax(1) / 448
        found[name] = (state[name] / scale[:, None]).to(E4M3)
        found[f"{name}_scale"] = scale
        said[name.removesuffix(".weight")] = {"format": "float8_e4m3fn"}
    save_file(found, path, {"_quantization_metadata": json.dumps({"layers": said})})


def fp8_older(state: State, path: Path) -> None:
    """`scaled_fp8` says that it is; scales go by another name."""
    found = _halves(state) | {"scaled_fp8": torch.zeros(2).to(E4M3)}
    for name in matrices(state):
        layer = name.removesuffix(".weight")
        found[name], scale = _scaled(state[name])
        found[f"{layer}.scale_weight"] = scale.reshape(1)
        found[f"{layer}.scale_input"] = torch.ones(1)
    save_file(found, path)


def hadamard(size: int) -> Tensor:
    """As a table for four columns, and its Kronecker powers."""
    seed = torch.tensor(
        [[1.0, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]], dtype=torch.float64
    )
    found = seed
    while len(found) < size:
        found = torch.kron(found, seed)
    return found / size**0.5


def _int8(state: State, path: Path, group: int) -> None:
    found = _halves(state)
    for name in matrices(state, group or 1):
        layer, weight = name.removesuffix(".weight"), state[name]
        words: dict[str, object] = {"format": "int8_tensorwise"}
        scale = weight.abs().max().reshape(()) / 127
        if group:
            turned = weight.double().unflatten(1, (-1, group)) @ hadamard(group).T
            weight = turned.flatten(1).float()
            scale = weight.abs().amax(1, keepdim=True) / 127
            words |= {"convrot": True, "convrot_groupsize": group}
        found[name] = (weight / scale).round().to(torch.int8)
        found[f"{layer}.weight_scale"] = scale
        found[f"{layer}.comfy_quant"] = _words(**words)
    save_file(found, path)


def int8_tensorwise(state: State, path: Path) -> None:
    """One scale a matrix."""
    _int8(state, path, 0)


def int8_convrot(state: State, path: Path) -> None:
    """Columns turned in groups of 64, and a scale for each row."""
    _int8(state, path, 64)


def _tiled(scales: Tensor) -> Tensor:
    """Scales `rows blocks`, of whole tiles, where cards look for them: tiles of 128 by 4 one after
    the other, of which the rows 0, 32, 64, 96 come first."""
    rows, blocks = (-(-n // tile) * tile for n, tile in zip(scales.shape, (128, 4), strict=True))
    found = torch.zeros(rows * blocks, dtype=scales.dtype)
    row, block = (torch.arange(n) for n in scales.shape)
    row = row[:, None]
    tile = row // 128 * (blocks // 4) + block // 4
    found[512 * tile + 16 * (row % 32) + 4 * (row % 128 // 32) + block % 4] = scales
    return found.reshape(rows, blocks)


def mxfp8(state: State, path: Path) -> None:
    """A power of two for every 32 numbers of a row, as bytes."""
    found = _halves(state)
    for name in matrices(state, 32):
        layer, blocks = name.removesuffix(".weight"), state[name].unflatten(1, (-1, 32))
        power = (blocks.abs().amax(2) / 448).log2().ceil().clamp(-127, 127)
        found[name] = (blocks / power.exp2()[..., None]).flatten(1).to(E4M3)
        found[f"{layer}.weight_scale"] = _tiled((power + 127).to(torch.uint8))
        found[f"{layer}.comfy_quant"] = _words(format="mxfp8")
    save_file(found, path)


def nvfp4(state: State, path: Path) -> None:
    """Two numbers in a byte, an fp8 scale for every 16 of a row, and one for the matrix."""
    known = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    found = _halves(state)
    for name in matrices(state, 32):
        layer, blocks = name.removesuffix(".weight"), state[name].unflatten(1, (-1, 16))
        whole = blocks.abs().max() / (6 * 448)
        scales = (blocks.abs().amax(2) / 6 / whole).to(E4M3)
        small = (blocks / (scales.float() * whole)[..., None].clamp(min=1e-12)).flatten(1)
        codes = (small.abs()[..., None] - known).abs().argmin(-1) + 8 * (small < 0)
        found[name] = (codes[:, ::2] * 16 + codes[:, 1::2]).to(torch.uint8)
        found[f"{layer}.weight_scale"] = _tiled(scales.view(torch.uint8)).view(E4M3)
        found[f"{layer}.weight_scale_2"] = whole
        found[f"{layer}.comfy_quant"] = _words(format="nvfp4")
    save_file(found, path)


def q8_0(values: np.ndarray) -> np.ndarray:
    import gguf

    return gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)


def q4_k(values: np.ndarray) -> np.ndarray:
    """Blocks of Q4_K, by rounding: the library writes none. Sub-blocks of 32 have a minimum and a
    scale of six bits each, in units of the block's."""
    rows, columns = values.shape
    sub = values.reshape(-1, 8, 32)
    low = np.minimum(sub.min(2), 0)
    step = (sub.max(2) - low) / 15
    d = (step.max(1, keepdims=True) / 63).astype(np.float16)
    m = (-low.min(1, keepdims=True) / 63).astype(np.float16)
    scales = np.round(step / d.astype(np.float32)).clip(0, 63).astype(np.uint8)
    minima = np.round(-low / m.astype(np.float32)).clip(0, 63).astype(np.uint8)
    unit = np.maximum(d.astype(np.float32) * scales, 1e-9)[..., None]
    codes = np.round((sub + (m.astype(np.float32) * minima)[..., None]) / unit).clip(0, 15)
    codes = codes.astype(np.uint8).reshape(-1, 4, 2, 32)
    packed = np.concatenate(
        [
            scales[:, :4] | (scales[:, 4:] >> 4 << 6),
            minima[:, :4] | (minima[:, 4:] >> 4 << 6),
            (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4,
        ],
        1,
    )
    nibbles = (codes[:, :, 0] | codes[:, :, 1] << 4).reshape(-1, 128)
    blocks = np.concatenate([d.view(np.uint8), m.view(np.uint8), packed, nibbles], 1)
    return blocks.reshape(rows, columns // 256 * 144)


def gguf_file(kind: str, columns: int, quantise: Callable[[np.ndarray], np.ndarray]):
    """A writer of files of that kind; rows that do not divide into blocks stay float16."""

    def write(state: State, path: Path, prefix: str = "model.diffusion_model.") -> None:
        import gguf

        writer = gguf.GGUFWriter(path, "seedvr")
        chosen = matrices(state, columns)
        for name, value in state.items():
            numbers = value.float().numpy()
            if name in chosen:
                data, form = quantise(numbers), gguf.GGMLQuantizationType[kind]
                writer.add_tensor(prefix + name, data, raw_dtype=form)
            else:
                writer.add_tensor(prefix + name, numbers.astype(np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    return write


gguf_q8_0 = gguf_file("Q8_0", 32, q8_0)
gguf_q4_k = gguf_file("Q4_K", 256, q4_k)
