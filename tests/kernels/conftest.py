"""Kernels on a card where there is one, else by Triton's interpreter; skipped without Triton."""

import os
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def by_kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From now on everything goes through the kernels; their names as they are called."""
    pytest.importorskip("triton")
    from skipsr.nn import fused, kernels

    called: list[str] = []

    class Counted:
        def __getattr__(self, name: str) -> object:
            called.append(name)
            return getattr(kernels, name)

    monkeypatch.setattr(fused, "_kernels", lambda _: Counted())
    return called
