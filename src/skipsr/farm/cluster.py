"""Workers that are actors of a Ray cluster. Descriptions of tasks travel, never frames."""

import logging
import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from skipsr.errors import SettingsError, describe_any
from skipsr.farm.devices import ALL, processors
from skipsr.farm.pool import Event, Lost, Pool, Said, Teller
from skipsr.farm.task import Divided, Done, Failed, ModelSettings, Task, Worker, WorkerSpec
from skipsr.memory import free_memory
from skipsr.video import remove_leftovers

LOCAL = "local"
_STORE = 80 * 2**20  # bytes of Ray's object store, where it is ours: nothing large is put into it


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one worker gets of a cluster."""

    cpus: int
    gpus: int = 0
    sharers: int = 1
    """Workers on the same machine."""
    node: str | None = None
    """The machine to be on as long as it is there; None for any."""


class Actor:
    """A worker, as Ray runs it."""

    def load(self, model: ModelSettings, share: Share) -> tuple[int, str | None]:
        """Its process, and why it cannot be what it is to be."""
        self._said: list[str] = []
        logging.getLogger("skipsr").addHandler(Teller(self._said.append))
        runtime = replace(model.runtime, device="cuda" if share.gpus else "cpu")
        free = free_memory() if share.sharers > 1 else None
        memory = free // share.sharers if free else None
        threads = max(1, share.cpus)  # there may be more cards than processors
        spec = WorkerSpec(model=replace(model, runtime=runtime), threads=threads, memory=memory)
        try:
            self._worker = Worker(spec)
        except Exception as error:
            return os.getpid(), describe_any(error)
        return os.getpid(), None

    def run(self, task: Task) -> tuple[list[str], Done | Divided | Failed]:
        """What it said, and how the task went."""
        self._said.clear()
        result = self._worker.run(task)
        return list(self._said), result


def check_cluster(devices: str, model: ModelSettings) -> None:
    """Raises SettingsError where Ray is missing, or for devices that it cannot place."""
    if find_spec("ray") is None:
        raise SettingsError('`ray` needs Ray: pip install "skipsr[ray]"')
    if model.runtime.device != "auto":
        raise SettingsError("with `ray` the cluster says where: leave out `device`")
    if devices != ALL and processors(devices) is None:
        raise SettingsError(f"`devices` {devices}: with `ray` give all or cpu:N")


@dataclass(slots=True)
class _Slot:
    """The place of one worker, whichever actor fills it."""

    share: Share
    actor: Any
    ahead: Any  # what it is at; None for a worker that is free
    process: int | None = None  # None until it is ready
    task: Task | None = None
    failures: int = 0


class Cluster(Pool):
    """A pool of Ray actors. It knows nothing of how far they are within a file."""

    def __init__(self, address: str, devices: str, model: ModelSettings, most: int, retries: int):
        """Args:
            address: of a cluster, or `local` to start one on this machine.
            devices: `all`, a worker for every card, or, where there are none, every machine; or
                `cpu:N`.
            most: workers that there is work for.

        See `check_cluster` for what it needs.
        """
        self._ray = import_module("ray")
        self._address, self._devices, self._most, self._retries = address, devices, most, retries
        weights = model.runtime.weights
        runtime = replace(model.runtime, weights=weights.absolute() if weights else None)
        self._model = replace(model, runtime=runtime)
        self._slots: list[_Slot] = []
        self._said: list[Event] = []
        self._ours = False  # the connection

    @property
    def alike(self) -> int:
        return len(self._slots)  # all on cards, or all on processors

    @property
    def free(self) -> int:
        return sum(slot.ahead is None for slot in self._slots)

    def start(self, task: Task) -> None:
        slot = next(slot for slot in self._slots if slot.ahead is None)
        # a worker on another machine has another working directory
        there = replace(task, input=task.input.absolute(), output=task.output.absolute())
        slot.task, slot.ahead = task, slot.actor.run.remote(there)

    def wait(self) -> Event | None:
        if self._said:
            return self._said.pop(0)
        aheads = {slot.ahead: slot for slot in self._slots if slot.ahead is not None}
        (first,), _ = self._ray.wait(list(aheads))
        slot = aheads[first]
        try:
            found = self._ray.get(first)
        except self._ray.exceptions.RayError as error:
            return self._bury(slot, f"lost: {str(error).splitlines()[0]}")
        task, slot.ahead = slot.task, None
        if task is None:
            slot.process, reason = found
            slot.failures = 0
            return None if reason is None else self._give_up(slot, reason)
        said, result = found
        slot.task = None
        self._said += map(Said, said)
        if isinstance(result, Failed) and result.fault:
            self._restart(slot)
        return replace(result, task=task)

    def _open(self) -> None:
        self._connect()
        for share in divide(self._devices, self._nodes())[: self._most]:
            self._slots.append(_Slot(share, *self._hire(share)))
        if not self._slots:
            raise SettingsError("`ray`: the cluster has no processors to work with")

    def _connect(self) -> None:
        own = self._address == LOCAL
        where: dict[str, Any] = {"address": self._address}
        if own:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
            count = processors(self._devices) or 0
            cpus = max(count, torch.get_num_threads())
            where = {
                "address": LOCAL,
                "num_cpus": cpus,
                "include_dashboard": False,
                "object_store_memory": _STORE,
            }
        stop = signal.getsignal(signal.SIGTERM)
        self._ours = not self._ray.is_initialized()
        try:
            self._ray.init(
                **where, logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True
            )
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise SettingsError(
                f"`ray` {self._address}: no cluster to work on: {reason}"
            ) from error
        finally:
            signal.signal(signal.SIGTERM, stop)  # Ray puts its own there

    def _nodes(self) -> dict[str, Mapping[str, float]]:
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    def _hire(self, share: Share) -> tuple[Any, Any]:
        """A new actor, and its loading."""
        strategy: Any = "SPREAD"
        if share.node is not None:
            affinity = import_module(
                "ray.util.scheduling_strategies"
            ).NodeAffinitySchedulingStrategy
            strategy = affinity(share.node, soft=True)
        actor = (
            self._ray.remote(Actor)
            .options(num_cpus=share.cpus, num_gpus=share.gpus, scheduling_strategy=strategy)
            .remote()
        )
        return actor, actor.load.remote(self._model, share)

    def _bury(self, slot: _Slot, reason: str) -> Event | None:
        """An actor, or its machine, is gone."""
        task, was_ready = slot.task, slot.process is not None
        self._restart(slot)
        if not was_ready:
            slot.failures += 1
            if slot.failures > self._retries:
                return self._give_up(slot, reason)
        return None if task is None else Lost(task, reason)

    def _restart(self, slot: _Slot) -> None:
        self._end(slot)
        slot.actor, slot.ahead = self._hire(slot.share)

    def _end(self, slot: _Slot) -> None:
        self._ray.kill(slot.actor)
        if slot.task is not None and slot.process is not None:
            remove_leftovers(slot.task.output, slot.process)
        slot.task = slot.process = None

    def _give_up(self, slot: _Slot, reason: str) -> Event:
        self._ray.kill(slot.actor)
        self._slots.remove(slot)
        if not self._slots:
            raise SettingsError(f"no worker could be started: {reason}")
        return Said(f"a worker of the cluster: {reason}")

    def _stop(self) -> None:
        for slot in self._slots:
            self._end(slot)
        self._slots.clear()
        if self._ours:
            self._ray.shutdown()


def divide(devices: str, nodes: Mapping[str, Mapping[str, float]]) -> Sequence[Share]:
    """How a cluster is divided.

    Args:
        nodes: resources of each machine, by its name in the cluster.
    """
    cpus = {node: int(found.get("CPU", 0)) for node, found in nodes.items()}
    gpus = Counter({node: int(found.get("GPU", 0)) for node, found in nodes.items()})
    count = processors(devices) if devices != ALL else None
    if count is not None:
        each = max(1, sum(cpus.values()) // count)
        sharers = min(count, max(cpus.values(), default=0) // each)
        return [Share(cpus=each, sharers=max(1, sharers))] * count
    if gpus.total():
        return [
            Share(cpus=cpus[node] // cards, gpus=1, sharers=cards, node=node)
            for node, cards in gpus.items()
            for _ in range(cards)
        ]
    return [Share(cpus=found, node=node) for node, found in cpus.items() if found]
