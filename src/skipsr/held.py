"""A cache of one loaded model, from job to job."""

from skipsr.backbones.contract import Upscaler, arrange
from skipsr.limits import ON_DEVICE, MemoryPlan
from skipsr.loading import Model
from skipsr.settings import SkipSettings


class Held:
    """The upscaler of the job before, for as long as the same is asked for.

    Its weights are where that job's memory plan had them: a job whose plan has them elsewhere loads
    it anew.
    """

    def __init__(self) -> None:
        self._asked: object = None
        self._upscaler: Upscaler | None = None

    def upscaler(
        self, asked: object, model: Model, skip: SkipSettings, memory: MemoryPlan | None
    ) -> Upscaler:
        """The upscaler for a job, arranged as planned.

        Args:
            asked: all that chose `model`; what equals it is the same model.
            memory: the job's plan.

        Raises:
            SettingsError: for what the model cannot do, or a device that is not there.
            WeightsError: when files are missing or do not fit.
        """
        self.drop_other(asked, skip, memory)
        if self._upscaler is None:
            self._upscaler = model.load(skip, memory)
            self._asked = _all_of(asked, skip, memory)
        arrange(self._upscaler, memory)
        return self._upscaler

    def drop_other(self, asked: object, skip: SkipSettings, memory: MemoryPlan | None) -> None:
        """Keep what is held if it is what `upscaler` would give, else nothing."""
        if self._asked != _all_of(asked, skip, memory):
            self.drop()

    def drop(self) -> None:
        """Keep nothing."""
        self._upscaler = self._asked = None


def _all_of(asked: object, skip: SkipSettings, memory: MemoryPlan | None) -> object:
    return asked, skip, ON_DEVICE if memory is None else memory.residence
