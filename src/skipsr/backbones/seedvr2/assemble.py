"""Which upscaler a model becomes, as settings say."""

import logging
from collections.abc import Callable

from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.execution import Execution
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.options import SeedVR2Options
from skipsr.backbones.seedvr2.token_skipping import TokenSkippingUpscaler
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.errors import SettingsError, WeightsError
from skipsr.limits import MemoryPlan
from skipsr.nn.residence import OffloadedNetwork, StreamedBlocks, travels
from skipsr.settings import SkipSettings
from skipsr.weights.place import Placement, channels_last

log = logging.getLogger(__name__)


def upscaler_for(
    name: str, skip: SkipSettings, options: SeedVR2Options
) -> Callable[[SeedVR2], SeedVR2Upscaler]:
    """See `UpscalerFactory`."""
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


def place_networks(model: SeedVR2, place: Placement, plan: MemoryPlan) -> None:
    """Put the parts of a model, now in the host's memory, where a plan says; see `memory_plan`."""
    execution, device = plan.execution, place.device
    assert isinstance(execution, Execution)
    if execution.weights == "device":
        place.put(model)
        return
    model.residence = execution.weights
    away = [model.dit, model.vae] if execution.weights == "in turn" else list(model.dit.blocks)
    host = {id(weight) for network in away for weight in travels(network)}
    for parameter in model.parameters():
        where = parameter.device if id(parameter) in host else device
        parameter.data = channels_last(parameter.data.to(where, place.dtype))
    for buffer_owner in model.modules():
        for name, buffer in buffer_owner.named_buffers(recurse=False):
            if id(buffer) not in host:
                setattr(buffer_owner, name, buffer.to(device))
    if execution.weights == "in turn":
        model.autoencoder_at_work = OffloadedNetwork(model.vae, device)
        model.transformer_at_work = OffloadedNetwork(model.dit, device)
    else:
        StreamedBlocks(list(model.dit.blocks), device)
