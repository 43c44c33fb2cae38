"""One run on many devices: the only file of the package that starts processes' communication.

`torchrun` starts a process per device. The world is a mesh (data, sequence): along the first axis
processes train on different clips, along the second they share the tokens of one (`sequence.py`).
Transformers are sharded with FSDP2, layer by layer; what is small stays whole on every device and
has its gradients averaged. Torch's own tools suffice: wrappers that replace a model's `forward`
would hide the methods that objectives call.
"""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from skipsr.errors import SettingsError
from skipsr.train.discriminator import Discriminator
from skipsr.train.sequence import Shared, collect, share_tokens
from skipsr.train.transformers import blocks_of, find_transformers

_PATIENCE = timedelta(hours=24)  # NCCL's own ends a run whose latents take ten minutes longer


@dataclass(frozen=True)
class Parallel:
    """This process among those of the run; alone when there is no mesh."""

    device: torch.device
    mesh: DeviceMesh | None = None  # (data, sequence)
    waiting: dist.ProcessGroup | None = None  # all processes, with patience for unequal work

    @staticmethod
    def start(device: str, sequence: int) -> "Parallel":
        """Join the other processes, if `torchrun` has started this one among several.

        Args:
            device: kind of device, `cpu` or `cuda`; each process takes its own.
            sequence: processes that share one clip's tokens.

        Raises:
            SettingsError: when the number of processes is no multiple of `sequence`.
        """
        world = processes()
        if world % sequence:
            raise SettingsError(
                f"{world} processes cannot form groups of {sequence}; start torchrun with a "
                f"--nproc-per-node that is a multiple of {sequence}"
            )
        if world == 1:
            return Parallel(torch.device(device))
        kind = torch.device(device).type
        if kind == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not dist.is_initialized():
            dist.init_process_group("nccl" if kind == "cuda" else "gloo")
        shape, names = (world // sequence, sequence), ("data", "sequence")
        mesh = init_device_mesh(kind, shape, mesh_dim_names=names)
        place = torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else kind
        waiting = dist.new_group(timeout=_PATIENCE)
        assert not isinstance(waiting, int)  # every process is in it
        return Parallel(torch.device(place), mesh, waiting)

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.mesh is None or dist.get_rank() == 0

    def own(self, batch: int) -> range:
        """Places of this process's clips in a batch.

        Raises:
            SettingsError: when the batch cannot be divided.
        """
        if self.mesh is None:
            return range(batch)
        groups = self.mesh["data"].size()
        if batch % groups:
            raise SettingsError(
                f"a batch of {batch} cannot be divided among {groups} groups of devices"
            )
        size = batch // groups
        first = self.mesh["data"].get_local_rank() * size
        return range(first, first + size)

    def spread(self, modules: Sequence[nn.Module], *, bfloat16: bool, recompute: bool) -> None:
        """Prepare networks for training, in place.

        Args:
            modules: what is trained and what stands beside it, on this process's device.
            bfloat16: compute so (on CUDA; gradients are summed in float32).
            recompute: keep only the layers' inputs for the backward pass.
        """
        for transformer in find_transformers(modules):
            if recompute:
                for block in blocks_of(transformer):
                    block.forward = functools.partial(
                        checkpoint, block.forward, use_reentrant=False
                    )
            if self.mesh is not None:
                self._divide(transformer, self.mesh, bfloat16)
        if self.mesh is None:
            return
        for module in modules:
            if self.mesh["sequence"].size() > 1:
                _gather_tokens(module)
            for value in (*module.parameters(), *module.buffers()):
                if not isinstance(value, DTensor):
                    dist.broadcast(value.data, 0)

    def _divide(self, transformer: nn.Module, mesh: DeviceMesh, bfloat16: bool) -> None:
        if mesh["sequence"].size() > 1:
            share_tokens(transformer, mesh["sequence"].get_group())
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if bfloat16 and self.device.type == "cuda" else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=False,  # a time of 437.3 is not a bfloat16
        )
        world = mesh._flatten("world") if mesh.ndim > 1 else mesh  # pyright: ignore[reportPrivateUsage]
        for block in blocks_of(transformer):
            fully_shard(block, mesh=world, mp_policy=policy)
        fully_shard(transformer, mesh=world, mp_policy=policy)

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average what FSDP has not: the gradients of parameters that every process holds whole."""
        if self.mesh is None:
            return
        own = [p for p in parameters if not isinstance(p, DTensor)]
        used = torch.tensor([float(p.grad is not None) for p in own], device=self.device)
        dist.all_reduce(used)
        for parameter, users in zip(own, used.tolist(), strict=True):
            if not users:  # nobody's loss depends on it
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()

    def mean(self, figures: Mapping[str, float | Tensor]) -> Mapping[str, float | Tensor]:
        """Figures averaged over all processes that have them."""
        if self.mesh is None:
            return figures
        gathered: list[dict[str, float]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(gathered, {name: float(value) for name, value in figures.items()})
        names = dict.fromkeys(name for part in gathered for name in part)
        return {
            name: sum(values) / len(values)
            for name in names
            for values in [[part[name] for part in gathered if name in part]]
        }

    def anyone(self, says: bool) -> bool:
        """Whether any process says so."""
        if self.mesh is None:
            return says
        found = torch.tensor(float(says), device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    def wait(self) -> None:
        """Until all processes are here, which may take hours where one has more to make."""
        if self.mesh is not None:
            dist.barrier(self.waiting)

    def shares(self, count: int) -> Iterator[int]:
        """This process's share of `count` jobs: every n-th of them, of n processes."""
        if self.mesh is None:
            return iter(range(count))
        return iter(range(dist.get_rank(), count, dist.get_world_size()))


def processes() -> int:
    """How many `torchrun` has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_here() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def leave() -> None:
    """End the communication with the other processes, if there was any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _gather_tokens(module: nn.Module) -> None:
    """Let a discriminator's heads pool all tokens of a depth, not those of one process alone."""
    if not isinstance(module, Discriminator):
        return
    (transformer,) = find_transformers([module])
    layouts: list[Shared] = []

    def note(_block: nn.Module, given: tuple[object, ...]) -> None:
        assert isinstance(given[3], Shared)
        layouts[:] = [given[3]]

    for block in blocks_of(transformer):
        block.register_forward_pre_hook(note)

    def gather(_module: nn.Module, _given: tuple[object, ...], rows: Tensor) -> Tensor:
        return collect(rows, layouts[0])

    module.gather.register_forward_hook(gather)
