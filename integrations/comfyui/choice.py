"""Which model a node runs, and how long it stays loaded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from skipsr.backbones.contract import Upscaler
from skipsr.devices import resolve
from skipsr.held import Held
from skipsr.limits import MemoryPlan
from skipsr.loading import Model, find_model
from skipsr.settings import AUTO, RuntimeSettings, SkipSettings

from . import host
from .weights import Found, with_parts


@dataclass(frozen=True)
class ModelChoice:
    """What the model node hands on; nothing is loaded before it is run.

    Attributes:
        options: of the model's family, by name, those alone that were given.
        keep_loaded: whether it stays loaded after a run.
    """

    name: str = AUTO
    network: Found | None = None
    autoencoder: Found | None = None
    device: str = "auto"
    dtype: Any = "auto"
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    keep_loaded: bool = False

    def find(self) -> Model:
        """The model and its files, of which the headers are read.

        Raises:
            SettingsError, WeightsError: as `skipsr.loading.find_model`.
        """
        runtime = RuntimeSettings(
            # ComfyUI may have been told to use another device than the fastest there is
            device=host.device_name() if self.device == "auto" else self.device,
            dtype=self.dtype,
            weights=self.network and self.network.path,
        )
        model = find_model(self.name, runtime, self.options)
        return with_parts(model, self.network, self.autoencoder) if self.network else model


class Loaded:
    """The one upscaler that may stay loaded between runs.

    It is dropped when a run asks for another model or other settings of it, when a run fails, and
    after each run of a choice that does not say `keep_loaded`.
    """

    def __init__(self) -> None:
        self._held = Held()

    @contextmanager
    def upscaler(
        self, choice: ModelChoice, model: Model, skip: SkipSettings, memory: MemoryPlan | None
    ) -> Iterator[Upscaler]:
        """The upscaler for a run with that memory plan, for the time of the block."""
        keep = False
        try:
            self._held.drop_other(choice, skip, memory)
            host.make_room(resolve(model.runtime)[0], host.bytes_needed(memory))
            yield self._held.upscaler(choice, model, skip, memory)
            keep = choice.keep_loaded
        finally:
            if not keep:
                self._held.drop()
                host.give_back()
