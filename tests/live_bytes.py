"""Bytes of live tensors, counted call by call on the meta device, for networks of any size.

Counted is what torch's allocator would be asked for; kernels' own workspaces are not seen.
"""

import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from skipsr.backbones.seedvr2 import attention
from skipsr.nn.tails import TailMemory


class LiveBytes(TorchDispatchMode):
    """Counts storages that calls inside make, and that are still there.

    Attributes:
        now, peak: bytes.
        largest: elements of the largest tensor that a convolution read or made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = {x.untyped_storage()._cdata for x in read}  # what is made of these is a view
        new = (x for x in made if x.is_meta and x.untyped_storage()._cdata not in there)
        self.given(*new)
        if "convolution" in func.__name__:
            self.largest = max(self.largest, args[0].numel(), *(x.numel() for x in made))
        return result

    def given(self, *tensors: Tensor) -> None:
        """Count tensors that were there before."""
        for x in tensors:
            storage = x.untyped_storage()
            if storage._cdata in self._seen:
                continue
            self._seen.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size

    def without(self, x: Tensor) -> Tensor:
        """Do not count a tensor that was just made."""
        storage = x.untyped_storage()
        self.now -= storage.nbytes()
        weakref.finalize(storage, self._back, storage.nbytes())
        return x

    def _back(self, size: int) -> None:
        self.now += size


@contextmanager
def counting() -> Generator[LiveBytes]:
    """Inside, the meta device is a card: attention and RMS norm are one kernel each, as there, and
    what a stream leaves to the host's memory is not counted."""
    live = LiveBytes()

    def on_host(_: TailMemory, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        before = live.peak
        x = live.without(like.new_empty(shape))
        live.peak = before
        return x

    def at_once(x: Tensor, *_: object) -> Tensor:
        return torch.empty_like(x)

    with (
        patch.object(F, "rms_norm", at_once),
        patch.object(TailMemory, "_on_host", on_host),
        patch.object(attention, "packed_attention", at_once),
        torch.no_grad(),
        live,
    ):
        yield live
