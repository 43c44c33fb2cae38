"""Where to compute, and in which precision."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import torch

from skipsr.errors import SettingsError
from skipsr.settings import RuntimeSettings


def resolve(runtime: RuntimeSettings) -> tuple[torch.device, torch.dtype]:
    """Device and dtype for these settings; "auto" takes the fastest there is.

    Raises:
        SettingsError: for a device that is not there.
    """
    device = _device(runtime.device)
    if runtime.dtype != "auto":
        return device, getattr(torch, runtime.dtype)
    if device.type == "cuda":
        with torch.cuda.device(device):
            fast = torch.cuda.is_bf16_supported(False)
        return device, torch.bfloat16 if fast else torch.float16
    return device, torch.bfloat16 if device.type == "cpu" and _fast_bfloat16() else torch.float32


@contextmanager
def undisturbed(*, inference: bool = True) -> Generator[None]:
    """Meanwhile what the program around has set for networks of its own changes nothing: a default
    device, autocast, gradients and inference mode. Also a decorator.

    Its default dtype stays, which is that of all threads: tensors are made with one of their own.

    Args:
        inference: whether networks are run; else they are loaded, to be moved at any time.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(inference))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def has_matrix_unit(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this is a processor with a unit for matrices of that dtype (Intel's AMX), by which
    convolutions take a third of the time, and copies as long as ever."""
    return device.type == "cpu" and dtype == torch.bfloat16 and _can("amx_bf16")


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise SettingsError(
            f"`device` {name} is not usable on this machine; try auto or cpu"
        ) from None
    return device


def _fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 in hardware; elsewhere it is emulated and slow."""
    if not torch.backends.mkldnn.is_available():  # the only one that uses it: not in Apple's builds
        return False
    return any(_can(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _can(name: str) -> bool:
    """Whether the processor has a capability, by torch's name of it."""
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get(name))
