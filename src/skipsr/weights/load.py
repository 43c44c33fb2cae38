"""Read weight files and put them into networks, strictly: every name and every shape must fit."""

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from skipsr.errors import WeightsError
from skipsr.weights.identify import FileKind, Shape, compare

SUFFIXES = (".safetensors", ".pth", ".pt")
# what torch's unpickler raises on bytes that are no torch file
_DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    struct.error,
)


def read_inventory(path: Path) -> dict[str, Shape]:
    """Names and shapes in a `.safetensors`, `.pth` or `.pt` file, without reading a value.

    Raises:
        WeightsError: when the file is missing, damaged, of another format, or holds more than
        tensors.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors_header(path)
    if path.suffix in SUFFIXES:
        return {name: tuple(value.shape) for name, value in read_pickled(path, "meta").items()}
    raise WeightsError(f"{path}: not a .safetensors, .pth or .pt file")


def _read_safetensors_header(path: Path) -> dict[str, Shape]:
    broken = WeightsError(
        f"{path}: not a readable safetensors file; it is damaged or incomplete, fetch it again"
    )
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8 or (length := struct.unpack("<Q", start)[0]) > size - 8:
            raise broken
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            if size != 8 + length + end:
                raise broken
            return {name: tuple(entry["shape"]) for name, entry in entries.items()}
        except (ValueError, LookupError, TypeError, AttributeError):
            raise broken from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a `.safetensors`, `.pth` or `.pt` file, on the CPU, in their own dtypes.

    Raises:
        WeightsError: when the file is missing, damaged, of another format, or holds more than
        tensors.
    """
    read_inventory(path)  # its messages are the clear ones
    return read_values(path)


def read_values(path: Path) -> dict[str, Tensor]:
    """The tensors of a file whose header was read before."""
    if path.suffix != ".safetensors":
        return read_pickled(path, "cpu")
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from None


def read_pickled(path: Path, device: str) -> dict[str, Tensor]:
    """Tensors of a torch file; other objects are refused, never unpickled.

    A file that holds one tensor gives it under the name "". Where it holds tables of tensors, as
    checkpoints of training programs do, names are `table.name`, and what else is beside them (such
    as settings or counts) is left out.
    """
    # many published files are of torch's old form, which cannot be mapped
    mmap = device != "meta" and zipfile.is_zipfile(path)
    try:
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


def load_strictly(network: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Give a network (on the meta device or not) these tensors, by assignment.

    Raises:
        WeightsError: naming what is missing, unexpected or misshapen.
    """
    expected = FileKind(name, inventory(network))
    match = compare({key: tuple(value.shape) for key, value in tensors.items()}, expected)
    if not match.exact:
        raise WeightsError(f"the weights do not fit {name}: {match.describe()}")
    network.load_state_dict(dict(tensors), strict=True, assign=True)


def inventory(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors."""
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
