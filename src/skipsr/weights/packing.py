"""How safetensors files of eight or four bits say what their numbers mean.

Beside `LAYER.weight` lies a scale, under either of two names, and a word on the format: a tensor
`LAYER.comfy_quant` with JSON in it, or the same in the file's metadata. Older files hold a tensor
`scaled_fp8` in place of words, the oldest nothing at all.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from skipsr.errors import WeightsError
from skipsr.weights.block_scales import MXFP8, NVFP4, block_scaled, count_scales, logical_shape
from skipsr.weights.quantized import QuantizedTensor, can_rotate, fp8, int8

_SCALES = ("weight_scale", "scale_weight")
_WHOLE = "_2"  # behind a scale's name: that of the whole matrix, where blocks have their own
_INPUT_SCALES = ("input_scale", "scale_input")  # for products in eight bits, which are not made
_MARK, _METADATA, _OLD_MARK = "comfy_quant", "_quantization_metadata", "scaled_fp8"
_BYTES = ("F8_E4M3", "F8_E5M2", "F8_E8M0", "I8", "U8")
_PACKED = (*_BYTES, "F4")
NO_SCALES = "fp8 without scales"
_MOST_JSON = 2**12  # bytes of a layer's


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a safetensors header."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """How one tensor is stored."""

    scale: str | None  # the tensor with its scales
    rotation: int | None  # None for fp8; of int8 the columns that were turned together, or 0
    blocks: str = ""  # mxfp8 or nvfp4, whose scales are of blocks

    def of(self, name: str, tensors: Mapping[str, Tensor]) -> QuantizedTensor:
        scale = tensors[self.scale] if self.scale else None
        if self.blocks and scale is not None:
            whole = tensors.get(f"{self.scale}{_WHOLE}")
            return block_scaled(self.blocks, tensors[name], scale, whole)
        if self.rotation is None or scale is None:
            return fp8(tensors[name], scale)
        return int8(tensors[name], scale, self.rotation)

    @property
    def phrase(self) -> str:
        if self.blocks:
            return self.blocks
        if self.rotation is None:
            return "fp8 with scales" if self.scale else NO_SCALES
        return "int8 with ConvRot" if self.rotation else "int8"


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a safetensors file holds, without a value read but the words on formats.

    Attributes:
        entries: all tensors.
        packed: how those are stored that are in eight bits.
        marks: tensors that only say how others are stored.
    """

    entries: Mapping[str, Entry]
    packed: Mapping[str, Packed]
    marks: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> "SafetensorsHeader":
        """Raises:
        WeightsError: for a damaged file, or one of a format that is not read.
        OSError: when it cannot be opened.
        """
        with path.open("rb"):  # of one that cannot be the library says neither which nor why
            pass
        try:
            with safe_open(path, "numpy") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                entries = {
                    name: Entry(found.get_dtype(), tuple(found.get_shape()))
                    for name, found in slices.items()
                }
                configs = _words(path, file, entries)
        except SafetensorError:
            raise WeightsError(
                f"{path}: not a readable safetensors file; it is damaged or incomplete, fetch it "
                "again"
            ) from None
        marks = frozenset(name for name in entries if _is_mark(name, entries))
        packed = {
            name: _packing(path, name, entries, configs.get(name.removesuffix(".weight"), {}))
            for name, entry in entries.items()
            if entry.dtype in _PACKED and name not in marks
        }
        return cls(entries, packed, marks)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        found = {name: e.shape for name, e in self.entries.items() if name not in self.marks}
        return found | {
            name: logical_shape(p.blocks, found[name]) for name, p in self.packed.items()
        }

    @property
    def form(self) -> str:
        """A phrase on what is in eight bits; empty where nothing is."""
        matrices = {
            p.phrase for name, p in self.packed.items() if len(self.entries[name].shape) > 1
        }
        return " and ".join(sorted(matrices))


def _is_mark(name: str, entries: Mapping[str, Entry]) -> bool:
    layer, _, last = name.rpartition(".")
    beside = (_MARK, *_SCALES, *_INPUT_SCALES, f"{_SCALES[0]}{_WHOLE}")
    return last == _OLD_MARK or (last in beside and f"{layer}.weight" in entries)


def _words(path: Path, file: Any, entries: Mapping[str, Entry]) -> dict[str, dict[str, Any]]:
    """What the open file says of its layers, by their names."""
    found: dict[str, dict[str, Any]] = {}
    try:
        said = json.loads((file.metadata() or {}).get(_METADATA, "{}")).get("layers", {})
        found |= {layer: dict(words) for layer, words in said.items()}
        for name in entries:
            if name.endswith(f".{_MARK}"):
                text = file.get_tensor(name).tobytes()[:_MOST_JSON]
                found[name.removesuffix(f".{_MARK}")] = dict(json.loads(text))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError):
        raise WeightsError(
            f"{path}: what it says of its quantised layers cannot be read; fetch it again"
        ) from None
    return found


def _packing(
    path: Path, name: str, entries: Mapping[str, Entry], words: Mapping[str, Any]
) -> Packed:
    entry, layer = entries[name], name.removesuffix(".weight")
    scales = (f"{layer}.{last}" for last in _SCALES)
    scale = next((found for found in scales if found in entries and found != name), None)
    said = words.get("format")
    group = words.get("convrot_groupsize", 256) if words.get("convrot") else 0
    known = {
        "F8_E4M3": (None, "float8_e4m3fn", MXFP8),
        "I8": ("int8_tensorwise",),
        "U8": (NVFP4,),
    }
    kind = said or {"I8": "int8 without a word on its kind"}.get(entry.dtype, entry.dtype)
    if said not in known.get(entry.dtype, ()) or (entry.dtype == "I8" and scale is None):
        raise _unknown(path, name, str(kind))
    if said in (MXFP8, NVFP4):
        needed = count_scales(said, entry.shape)
        held = 0
        if scale is not None and entries[scale].dtype in _BYTES:
            held = prod(entries[scale].shape)
        if needed == 0 or held != needed or (said == NVFP4) != (f"{scale}{_WHOLE}" in entries):
            raise _unknown(path, name, f"{said} without the scales that it needs")
        return Packed(scale, None, said)
    if scale is not None and prod(entries[scale].shape) not in (1, entry.shape[0]):
        raise _unknown(path, name, f"{kind} with scales of blocks")
    if entry.dtype == "F8_E4M3":
        return Packed(scale, None)
    if group and not (
        isinstance(group, int) and len(entry.shape) == 2 and can_rotate(entry.shape[1], group)
    ):
        raise _unknown(path, name, f"{kind} turned in groups of {group}")
    return Packed(scale, group)


def _unknown(path: Path, name: str, kind: str) -> WeightsError:
    return WeightsError(
        f"{path}: {name} is stored as {kind}, which is not read; float16, bfloat16, float32, fp8 "
        "(e4m3fn), int8 (int8_tensorwise), mxfp8, nvfp4 and GGUF are: take one of these"
    )
