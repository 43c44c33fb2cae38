"""The paper's way to skip: tokens past the transformer alone."""

from torch import Tensor

from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.options import SeedVR2Options
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.clip import Clip
from skipsr.devices import undisturbed
from skipsr.errors import SettingsError
from skipsr.settings import SkipSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.oracle import TAU
from skipsr.skipping.route import THRESHOLD, Route


class TokenSkippingUpscaler(SeedVR2Upscaler):
    """SkipSR's way: tokens that the mask predictor leaves out skip the transformer.

    The predictor reads latents, and the autoencoder sees everything.
    """

    def __init__(
        self,
        name: str,
        model: SeedVR2,
        skip: SkipSettings,
        options: SeedVR2Options | None = None,
    ) -> None:
        """Raises:
        SettingsError: for a budget when no predictor says where to spend it, and for what is not
            for tokens.
        """
        for dial in ("quality", "speed"):
            if getattr(skip, dial) is not None:
                raise SettingsError(f"`{dial}` is not for skipped tokens: give `tau` or `budget`")
        if skip.budget is not None and not model.predicts:
            raise SettingsError(f"{name} has no mask predictor here: leave out `budget`")
        super().__init__(name, model, SkipSettings(dense=True), options)
        self.asked = skip.asked or {"threshold": THRESHOLD}
        self._skip = skip

    @undisturbed()
    def compute_map(self, clip: Clip, size: tuple[int, int]) -> ComputeMap:
        """The tokens that `upscale` would compute; the clip has to be encoded to know."""
        bounds = self._run_as(clip, size).bounds
        with self.model.autoencoder_at_work:
            latent = self.model.encode(self._frames(clip, size, bounds), bounds)[0]
        return self._whole_map(self._route(latent), len(clip))

    def _route(self, latent: Tensor) -> Route:
        if self._skip.dense or not self.model.predicts:
            return super()._route(latent)
        tau = TAU if self._skip.tau is None else self._skip.tau
        scores = self.model.scores(latent[None], tau)[0].float().sigmoid()
        if self._skip.budget is not None:
            return Route.from_budget(scores, self._skip.budget)
        threshold = THRESHOLD if self._skip.threshold is None else self._skip.threshold
        return Route(scores >= threshold)
