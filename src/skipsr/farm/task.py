"""Tasks, in plain values that can be pickled, and the worker that does them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

import torch

from skipsr.backbones.contract import Upscaler
from skipsr.errors import describe, describe_any
from skipsr.held import Held
from skipsr.limits import MemoryPlan
from skipsr.loading import Model, find_model
from skipsr.pipeline.job import Progress, Report, run_job
from skipsr.pipeline.manifest import Stretch
from skipsr.pipeline.plan import JobPlan, plan_job, plan_windows
from skipsr.pipeline.sections import divide
from skipsr.settings import AUTO, JobSettings, RuntimeSettings, SkipSettings
from skipsr.video import SourceInfo

_SMALL = 128, 128  # pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A file to enlarge. Doing it again gives the same, so that it may be tried again."""

    input: Path
    output: Path
    job: JobSettings
    source: SourceInfo | None = None
    """What is known of the input, where it was looked at before: that reads all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divide(Task):
    """A file, long maybe, to be divided among so many workers; nothing is enlarged."""

    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Task):
    """A section of a long file, to be enlarged and kept beside the output; see
    `skipsr.pipeline.sections`."""

    stretch: Stretch


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """The model that all workers load."""

    name: str = AUTO
    skip: SkipSettings = field(default_factory=SkipSettings)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    """Of the model's family, by name."""

    def find(self) -> Model:
        """See `skipsr.loading.find_model`."""
        return find_model(self.name, self.runtime, self.options)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """One worker: its model, with the device that it is for, and its part of the machine."""

    model: ModelSettings
    threads: int
    """Of the processor."""
    memory: int | None = None
    """Its share of the host's that is free, in bytes; None where it has all to itself."""

    @property
    def device(self) -> str:
        return self.model.runtime.device


@dataclass(frozen=True, slots=True)
class Done:
    """A file was written."""

    task: Task
    report: Report


@dataclass(frozen=True, slots=True)
class Divided:
    """What a file was divided into: nothing, where it is better made in one."""

    task: Task
    sections: tuple[Stretch, ...]
    source: SourceInfo
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A file could not be done; `fault` where the program is to blame, not the file."""

    task: Task
    error: str
    fault: bool = False


class Worker:
    """A loaded model, and tasks one after the other.

    Weights are where each task's memory plan has them; at first where a small picture's has.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        """Raises:
        SettingsError: for a device that is not there.
        WeightsError: when files are missing or do not fit.
        """
        torch.set_num_threads(spec.threads)
        self._model, self._skip = spec.model.find(), spec.model.skip
        self._memory = spec.memory
        self._held = Held()
        limits = self._model.limits
        self._load(plan_windows(_SMALL, _SMALL, limits, JobSettings(), self._memory).memory)

    def run(
        self, task: Task, watch: Callable[[Progress], None] | None = None
    ) -> Done | Divided | Failed:
        """Do a task, and say how that went."""
        limits = self._model.limits
        try:
            task.output.parent.mkdir(parents=True, exist_ok=True)
            source = task.source or task.input
            plan = plan_job(source, task.output, limits, task.job, free=self._memory)
            upscaler = self._load(plan.memory)
            if isinstance(task, Divide):
                return _divide(task, plan, upscaler, watch)
            if isinstance(task, Section):
                plan = replace(plan, stretch=task.stretch)
            return Done(task, run_job(plan, upscaler, watch))
        except Exception as error:
            told = describe(error)
            if told is not None:
                return Failed(task, told)
            return Failed(task, f"{task.input}: {describe_any(error)}", fault=True)

    def _load(self, memory: MemoryPlan | None) -> Upscaler:
        return self._held.upscaler(self._model.name, self._model, self._skip, memory)


def _divide(
    task: Divide, plan: JobPlan, upscaler: Upscaler, watch: Callable[[Progress], None] | None
) -> Divided:
    began = monotonic()

    def look(frame: int) -> None:
        if watch is not None:
            watch(Progress("read", frame, max(frame, plan.source.frames)))

    sections = divide(plan, upscaler, task.workers, look)
    return Divided(task, tuple(sections), plan.source, monotonic() - began)
