"""Read weight files and put them into networks, strictly: every name and every shape must fit."""

import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TypeGuard, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from skipsr.errors import WeightsError
from skipsr.weights.ggml import DECODERS, read_blocks
from skipsr.weights.identify import FileKind, Shape, compare
from skipsr.weights.meta import on_meta
from skipsr.weights.packing import SafetensorsHeader
from skipsr.weights.place import channels_last
from skipsr.weights.quantized import QuantizedTensor, Stored, hold_quantized, plain

_Network = TypeVar("_Network", bound=nn.Module)
ASSETS = Path(str(files("skipsr.assets")))  # files that come with the package
SUFFIXES = (".safetensors", ".gguf", ".pth", ".pt")
# what torch's unpickler raises on bytes that are no torch file
_DAMAGED = (
    RuntimeError,
    AssertionError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    struct.error,
    zipfile.BadZipFile,
)


class FileInventory(dict[str, Shape]):
    """Names and shapes of a file's tensors, and a phrase on how their numbers are stored."""

    def __init__(self, shapes: Mapping[str, Shape], form: str = "") -> None:
        super().__init__(shapes)
        self.form = form  # such as "fp8 with scales"; empty for plain numbers


def read_inventory(path: Path) -> FileInventory:
    """What a `.safetensors`, `.gguf`, `.pth` or `.pt` file holds, without reading a value.

    Tensors that only say how others are stored, such as scales, are not among them.

    Raises:
        WeightsError: when the file is missing, damaged, of another format, or holds more than
        tensors.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: give one of the files in it")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        header = SafetensorsHeader.read(path)
        return FileInventory(header.shapes, header.form)
    if path.suffix == ".gguf":
        blocks = read_blocks(path)
        kinds = sorted({block.kind for block in blocks} & DECODERS.keys())
        shapes = {block.name: block.shape for block in blocks}
        return FileInventory(shapes, f"GGUF {' and '.join(kinds)}".strip())
    if path.suffix in SUFFIXES:
        pickled = read_pickled(path, "meta")
        return FileInventory({name: tuple(value.shape) for name, value in pickled.items()})
    raise WeightsError(f"{path}: not a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weight file, on the CPU; plain ones in their own dtypes, quantised ones in
    float32.

    Raises:
        WeightsError: when the file is missing, damaged, of another format, or holds more than
        tensors.
    """
    read_inventory(path)  # its messages are the clear ones
    return {name: plain(value) for name, value in read_stored(path).items()}


def read_stored(path: Path) -> dict[str, Stored]:
    """The tensors of a file whose header was read before, on the CPU, as they are stored."""
    if path.suffix == ".gguf":
        return {block.name: block.read() for block in read_blocks(path)}
    if path.suffix != ".safetensors":
        return {**read_pickled(path, "cpu")}
    header = SafetensorsHeader.read(path)
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from None
    return {
        name: header.packed[name].of(name, tensors) if name in header.packed else value
        for name, value in tensors.items()
        if name not in header.marks
    }


def read_pickled(path: Path, device: str) -> dict[str, Tensor]:
    """Tensors of a torch file; other objects are refused, never unpickled.

    A file that holds one tensor gives it under the name "". Where it holds tables of tensors, as
    checkpoints of training programs do, names are `table.name`, and what else is beside them (such
    as settings or counts) is left out.
    """
    try:
        # many published files are of torch's old form, which cannot be mapped
        mmap = device != "meta" and zipfile.is_zipfile(path)
        content = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path}: holds other Python objects than tensors, or is damaged; it is not loaded. "
            "Use the .safetensors form of this file"
        ) from None
    except _DAMAGED as error:
        reason = (str(error).splitlines() or ["it is empty"])[0]
        raise WeightsError(f"{path}: not a readable torch file ({reason})") from None
    if isinstance(content, Tensor):
        return {"": content}
    if _is_table(content):
        return content
    found = _flatten(content) if isinstance(content, dict) else {}
    if not found:
        raise WeightsError(f"{path}: not a flat table of tensors, nor a table of such tables")
    return found


def _is_table(content: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def _flatten(content: Mapping[object, object]) -> dict[str, Tensor]:
    """Every tensor of a checkpoint and of the tables in it; nothing when it has no table."""
    tables = {k: v for k, v in content.items() if isinstance(k, str) and _is_table(v)}
    if not any(tables.values()):
        return {}
    beside = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    return beside | {f"{table}.{k}": v for table, held in tables.items() for k, v in held.items()}


def load_strictly(network: nn.Module, tensors: Mapping[str, Stored], name: str) -> None:
    """Give a network (on the meta device or not) these tensors, by assignment.

    Quantised matrices of linear layers stay as they are; what else is quantised becomes float32.

    Raises:
        WeightsError: naming what is missing, unexpected or misshapen.
    """
    expected = FileKind(name, inventory(network))
    match = compare({key: tuple(value.shape) for key, value in tensors.items()}, expected)
    if not match.exact:
        raise WeightsError(f"the weights do not fit {name}: {match.describe()}")
    held = {
        key
        for key, value in tensors.items()
        if isinstance(value, QuantizedTensor) and hold_quantized(network, key, value)
    }
    numbers = {key: plain(value) for key, value in tensors.items() if key not in held}
    network.load_state_dict(numbers, strict=not held, assign=True)


def load_bundled(
    make: Callable[[], _Network], name: str, asset: str, path: Path | None
) -> _Network:
    """A small network from a file, or the bundled one; float32, on the CPU, for inference.

    Args:
        name: what messages call it.
        asset: the name of the bundled file.
        path: of another one.

    Raises:
        WeightsError: when the file is missing, damaged, or holds another network.
    """
    source = path or ASSETS / asset
    with on_meta():
        network = make()
    tensors = {key: channels_last(tensor.float()) for key, tensor in read_tensors(source).items()}
    load_strictly(network, tensors, name)
    return network.eval().requires_grad_(False)


def inventory(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors."""
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
