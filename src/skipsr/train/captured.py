"""A phase's step as a CUDA graph: thousands of small launches become one.

A recurrent network of few channels is otherwise bound by how fast Python can launch its kernels.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from skipsr.train.objective import Batch, LatentBatch, Phase, map_tensors
from skipsr.train.settings import TrainSettings

_WARM_UP = 3  # steps run as they are: allocators, cuDNN's choices and optimizer states settle


class CapturedTurn:
    """Takes the steps of one phase: the first few eagerly, then recorded once and replayed.

    The arithmetic is that of `loop.take_turn`, but nothing is read back: a step whose gradient is
    not finite changes nothing, and counts in the figure `skipped`.

    Args:
        phase: a `static` one, on a CUDA device, which need not be the current one.
        optimizer: fused and capturable, with rates as tensors on the device.
    """

    def __init__(
        self, phase: Phase, optimizer: torch.optim.Optimizer, settings: TrainSettings
    ) -> None:
        self._phase, self._optimizer, self._settings = phase, optimizer, settings
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._device = self._parameters[0].device
        self._stream = torch.cuda.Stream(self._device)
        self._batch: Batch | None = None
        self._done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._names: list[str] = []
        self._figures = torch.zeros(0)

    def __call__(self, batch: Batch, rate: float) -> Mapping[str, Tensor]:
        """One step at a learning rate; the figures stay on the device."""
        for group in self._optimizer.param_groups:
            group["lr"].fill_(rate * self._phase.rate * group["share"])
        if self._batch is None:
            self._batch = map_tensors(batch, Tensor.clone)
        else:
            _copy(self._batch, batch)
        with torch.cuda.device(self._device):  # streams of others would record nothing
            self._take(self._batch)
        return dict(zip(self._names, self._figures.clone().unbind(), strict=True))

    def _take(self, batch: Batch) -> None:
        """One step, on the current device."""
        self._done += 1
        if self._graph is None and self._done <= _WARM_UP:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._step(batch)
            torch.cuda.current_stream().wait_stream(self._stream)
            return
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            # other threads pin the batches to come meanwhile
            recording = torch.cuda.graph(
                graph, stream=self._stream, capture_error_mode="thread_local"
            )
            with recording:  # which runs nothing
                self._step(batch)
            self._graph = graph
        self._graph.replay()

    def _step(self, batch: Batch) -> None:
        for parameter in self._parameters:
            parameter.grad = None
        with self._settings.autocast(torch.device("cuda")):
            losses = self._phase.losses(batch)
        losses.total.backward()
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).norm()
        lost = (~norm.isfinite()).float()
        for gradient in gradients:
            gradient.mul_((self._settings.clip_norm / (norm + 1e-6)).clamp(max=1))
        self._optimizer.found_inf = lost  # type: ignore[attr-defined]  # as a `GradScaler` tells it
        self._optimizer.step()
        figures = {"loss": losses.total, "gradient": norm, "skipped": lost, **losses.figures}
        self._names = list(figures)
        values = [x if isinstance(x, Tensor) else norm.new_tensor(x) for x in figures.values()]
        self._figures = torch.stack([x.detach().float() for x in values]).nan_to_num()


def _copy(target: Batch, source: Batch) -> None:
    target.high.copy_(source.high)
    target.base.copy_(source.base)
    if isinstance(target, LatentBatch) and isinstance(source, LatentBatch):
        target.errors.copy_(source.errors)
