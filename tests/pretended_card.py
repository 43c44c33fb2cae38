"""CUDA without a card: tensors that say they are on `cuda:0`, with values in this process.

Calls of torch's functions are run on the values, so masks decide as they would and results can be
compared; torch's own fake tensors have no values, and what is laid out by value cannot run on them.
What CUDA refuses is refused: tensors of two devices in one call. Autocast chooses dtypes as it does
on CUDA. What makes the host wait is counted, and so is what enters the fast attention.
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from skipsr.nn import attention

CARD = torch.device("cuda", 0)
_WAITS = {
    "item": "item", "__bool__": "item", "__int__": "item", "__float__": "item", "__index__": "item",
    "is_nonzero": "item", "equal": "item", "allclose": "item", "bincount": "item",
    "nonzero": "nonzero", "masked_select": "nonzero", "unique": "nonzero", "tolist": "download",
}  # fmt: skip
_COPIES = {"copy_", "__setitem__"}
_INDEXING = {"__getitem__", "__setitem__", "index_put", "index_put_"}
_MOVES = {"to", "cpu", "cuda", "copy_", "__set__"}
# of torch's `autocast_mode.h`, what networks and losses here may call
_LOWER = {
    "conv1d", "conv2d", "conv3d", "linear", "matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm",
    "einsum", "scaled_dot_product_attention",
}  # fmt: skip
_FLOAT32 = {
    "exp", "log", "pow", "__pow__", "rsqrt", "reciprocal", "softplus", "layer_norm", "rms_norm",
    "group_norm", "l1_loss", "mse_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits",
    "logsumexp", "interpolate", "prod", "softmax", "log_softmax", "cumsum", "cumprod", "sum",
}  # fmt: skip


class OnCard(torch.Tensor):
    """A tensor of this process that says it is on the card."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # `Card` sees to it

    device = property(lambda self: CARD)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]


class Card(TorchFunctionMode):
    """Runs calls with `OnCard`, and keeps account.

    Attributes:
        waits: of the host for the card, by kind: `item`, `nonzero`, `download`, `detour`.
        uploads: of the host's tensors; from memory that is not pinned each waits as well.
        attention: dtypes of q, k and v of each call of the flash kernel.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.uploads = 0
        self.attention: set[tuple[torch.dtype, ...]] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # an attribute, such as a shape or a gradient
            found = func(*args)
            ours = isinstance(found, Tensor) and isinstance(args[0], OnCard)
            return _wrapped(found) if ours else found
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = any(isinstance(x, OnCard) for x in tensors)
        there = _goes_there(name, args, kwargs, ours)
        if not ours and not there:
            return func(*args, **kwargs)
        if name == "_has_compatible_shallow_copy_type":  # a module's move: no, make new parameters
            return all(isinstance(x, OnCard) for x in tensors)
        self._check(name, args, tensors)
        self._count(name, args, tensors, there)
        if torch.is_autocast_enabled("cuda") and name in _LOWER | _FLOAT32:
            dtype = torch.get_autocast_dtype("cuda") if name in _LOWER else torch.float32
            args, kwargs = _cast((args, kwargs), dtype)
        if name == "__iter__":
            return iter([_wrapped(x) for x in args[0].unbind(0)])
        result = func(*_hosted(args), **_hosted(kwargs))
        given = {id(x) for x in tensors}
        return tree_map(
            lambda x: (
                x
                if not isinstance(x, Tensor) or (id(x) in given and isinstance(x, OnCard) == there)
                else _wrapped(x)
                if there
                else x.clone().as_subclass(Tensor)
            ),
            result,
        )

    def _check(self, name: str, args: tuple[Any, ...], tensors: list[Tensor]) -> None:
        here = [x for x in tensors if not isinstance(x, OnCard) and x.ndim]
        if name in _INDEXING:
            chosen = [x for x in tree_leaves(args[1]) if isinstance(x, Tensor)]
            if name == "__setitem__" and not chosen:
                return  # a copy into a place
            apart = {id(x) for x in chosen} if isinstance(args[0], OnCard) else set[int]()
            here = [x for x in here if id(x) not in apart]  # indices may be the host's
        if name not in _MOVES and here and len(here) < len(tensors):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")

    def _count(self, name: str, args: tuple[Any, ...], tensors: list[Tensor], there: bool) -> None:
        kind = _WAITS.get(name)
        source = args[0] if name in ("to", "cpu", "cuda") else args[-1] if name in _COPIES else None
        if isinstance(source, OnCard) and not there:
            kind = "download"
            if name == "copy_" and not args[0].is_contiguous():
                kind = "detour"  # by memory of torch's own
        self.uploads += name in ("tensor", "as_tensor")
        self.uploads += isinstance(source, Tensor) and there and not isinstance(source, OnCard)
        if name == "__setitem__" and isinstance(args[2], (int, float)):
            self.uploads += _hosted(args[0])[args[1]].ndim == 0  # else it is filled in there
        if name in _INDEXING:
            chosen = [x for x in tree_leaves(args[1]) if isinstance(x, Tensor)]
            self.uploads += any(not isinstance(x, OnCard) for x in chosen)
            if any(x.dtype == torch.bool for x in chosen):
                kind = "nonzero"
        if kind is not None:
            self.waits[kind] += 1

    def flash(
        self, q: Tensor, k: Tensor, v: Tensor, ends: Tensor, _ends: Tensor, most: int, _most: int
    ) -> Tensor:
        """In place of `varlen_attn`: attention of each sequence by itself."""
        self.attention.add((q.dtype, k.dtype, v.dtype))
        places = ends.as_subclass(Tensor)
        lengths = (places[1:] - places[:-1]).tolist()
        assert max(lengths) <= most
        with torch.autocast("cuda", enabled=False):
            parts = zip(*(x.float().split(lengths) for x in (q, k, v)), strict=True)
            found = [_softmax_attention(*part) for part in parts]
            return torch.cat(found).to(q.dtype)

    @property
    def flash_only(self) -> bool:
        """Whether attention was the flash kernel's, with q, k and v of one half precision."""
        return bool(self.attention) and self.attention <= {(torch.bfloat16,) * 3}


@contextmanager
def pretended_card(monkeypatch: pytest.MonkeyPatch) -> Generator[Card]:
    """Inside, `cuda` is there."""
    card = Card()
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
        patch.setattr(attention, "varlen_attn", card.flash)
        attention.flash_runs.cache_clear()
        with card:
            attention.flash_runs(CARD)
            card.attention.clear()
            card.uploads = 0
            yield card
    attention.flash_runs.cache_clear()


def on_card(x: Tensor) -> Tensor:
    """A copy there."""
    return x.clone().as_subclass(OnCard)


def _goes_there(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], ours: bool) -> bool:
    """Whether a call's results are on the card."""
    if name in ("cpu", "cuda"):
        return name == "cuda"
    told = [kwargs["device"]] if kwargs.get("device") is not None else []
    if name == "to":
        told += [x for x in args[1:] if isinstance(x, torch.device | str | Tensor)]
    if told:
        device = told[0].device if isinstance(told[0], Tensor) else torch.device(told[0])
        return device.type == "cuda"
    if name in _COPIES:
        return isinstance(args[0], OnCard)
    return ours


def _hosted(given: Any) -> Any:
    """Arguments without the device that is not there."""

    def host(x: Any) -> Any:
        is_there = isinstance(x, torch.device) and x.type == "cuda"
        return torch.device("cpu") if is_there or (isinstance(x, str) and x[:4] == "cuda") else x

    return tree_map(host, given)


def _cast(given: Any, dtype: torch.dtype) -> Any:
    def cast(x: Any) -> Any:
        eligible = isinstance(x, OnCard) and x.is_floating_point() and x.dtype != torch.float64
        return _wrapped(x.to(dtype)) if eligible else x

    return tree_map(cast, given)


def _wrapped(x: Tensor) -> Tensor:
    return x if isinstance(x, OnCard) else x.as_subclass(OnCard)


def _softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = (torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)
