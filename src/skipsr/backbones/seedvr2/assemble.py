"""Which upscaler a model becomes, as settings say."""

import logging
from collections.abc import Callable

from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.options import SeedVR2Options
from skipsr.backbones.seedvr2.token_skipping import TokenSkippingUpscaler
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import SettingsError, WeightsError
from skipsr.settings import SkipSettings

log = logging.getLogger(__name__)


def upscaler_for(
    name: str, skip: SkipSettings, options: SeedVR2Options
) -> Callable[[SeedVR2], SeedVR2Upscaler]:
    """See `Finisher`."""
    if options.guidance is not None and not PRESETS[name.partition(":")[2]].negative_tokens:
        raise SettingsError(f"`guidance` is not for {name}: it was trained without")

    def finish(model: SeedVR2) -> SeedVR2Upscaler:
        if options.guidance not in (None, 1) and model.text.negative is None:
            raise WeightsError(f"{name}: `guidance` needs negative conditioning tokens, neg_emb.pt")
        if skip.dense or options.skip == "all":
            return SeedVR2Upscaler(name, model, skip, options)
        if not model.predicts:
            log.warning("%s has no mask predictor here: every token will be computed", name)
        return TokenSkippingUpscaler(name, model, skip, options)

    return finish
