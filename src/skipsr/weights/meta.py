"""Networks without numbers: their names and shapes, before a file is read into them."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAWN = (Tensor.normal_, Tensor.uniform_, init.kaiming_uniform_)
_COUNTED = (torch.arange, torch.linspace)  # few, and what follows from them as well


@contextmanager
def on_meta() -> Generator[None]:
    """Inside, networks are made on the meta device, without random numbers and ranges for them.

    To make those on the meta device torch imports its compiler, which takes longer than all else.
    """
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWN:
            return args[0] if args else kwargs["tensor"]
        if func in _COUNTED:
            return func(*args, **{**kwargs, "device": "cpu"})
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)
