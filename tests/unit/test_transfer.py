"""The host waits for copies, but for those of CUDA."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

import skipsr
from skipsr.nn.transfer import copy_over, send
from skipsr.skipping.feather import feather
from skipsr.skipping.regions import Regions

SOURCE = Path(skipsr.__file__).parent


class Heard(TorchFunctionMode):
    """Moves to devices that are not here do nothing; of all moves it is noted which let the host go
    on."""

    def __init__(self) -> None:
        super().__init__()
        self.alone: list[bool] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.to, Tensor.copy_):
            self.alone.append(kwargs.get("non_blocking", False))
        if func is Tensor.to:
            return args[0]
        if isinstance(kwargs.get("device"), torch.device):
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


class There(Tensor):
    """Says that it is on another device."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    kind = "mps"
    device = property(lambda self: torch.device(self.kind, 0))  # type: ignore[assignment]


class OnCard(There):
    kind = "cuda"


@pytest.mark.parametrize(("name", "alone"), [("cpu", False), ("mps", False), ("cuda:1", True)])
def test_only_a_card_is_sent_to_while_the_host_goes_on(name: str, alone: bool):
    with Heard() as heard:
        send(torch.ones(3), torch.device(name))
    assert heard.alone == [alone]


@pytest.mark.parametrize(("kind", "alone"), [(Tensor, False), (There, False), (OnCard, True)])
def test_only_a_card_copies_while_the_host_goes_on(kind: type[Tensor], alone: bool):
    here, there = torch.zeros(3), torch.ones(3).as_subclass(kind)
    with Heard() as heard:
        copy_over(there, here)
        copy_over(here, there)
    assert heard.alone == [alone, alone]
    assert here.tolist() == [1, 1, 1]


def test_apple_s_gpus_are_not_sent_what_is_gone_before_they_read_it():
    """Masks and the columns of a canvas are made, sent and let go of."""
    keep = torch.zeros(4, 6, dtype=torch.bool)
    keep[:2, 1:4] = True
    with Heard() as heard:
        Regions(keep, 2).at(4, (16, 24), torch.device("mps"))
        feather(keep.as_subclass(There), (16, 24), 4)
    assert len(heard.alone) == 4
    assert not any(heard.alone)


def test_nobody_else_lets_the_host_go_on():
    """Frames that land are waited for there."""
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if "non_blocking" in path.read_text(encoding="utf-8")
    }
    assert found == {"nn/transfer.py", "nn/landing.py"}
