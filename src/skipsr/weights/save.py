"""Writing tensors to files."""

import errno
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from skipsr.files import atomic_write


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a .safetensors file, aside first and then in place.

    Raises:
        OSError: when it cannot be written; the library has an error of its own for a full disk.
    """
    with atomic_write(path) as part:
        try:
            safetensors.torch.save_file(dict(tensors), part, metadata=metadata)
        except SafetensorError as error:
            told = re.search(r'(?:I/O error: |message: ")(.*?)(?:"| \(os error)', str(error))
            raise OSError(errno.EIO, told[1] if told else str(error)) from error
