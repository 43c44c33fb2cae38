"""Networks put where they run: numbers in the form that was asked for, constants as they were."""

import torch
from made_models import make_model

from skipsr.backbones.basicvsr.backbone import BACKBONE
from skipsr.backbones.basicvsr.config import PRESETS
from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.weights.place import Placement

CPU = torch.device("cpu")


def test_routers_and_constants_stay_exact():
    model = BasicVSR(PRESETS["tiny"])
    constants = {name: value.clone() for name, value in model.named_buffers()}
    Placement(device=CPU, dtype=torch.bfloat16, exact=BACKBONE.exact).put(model)
    for name, parameter in model.named_parameters():
        routes = name.startswith("router_")
        assert parameter.dtype == (torch.float32 if routes else torch.bfloat16), name
    assert constants
    assert all(torch.equal(value, constants[name]) for name, value in model.named_buffers())
    assert model.spynet.mean.dtype == torch.float32


def test_kernels_lie_channels_last():
    for model, sides, layout in (
        (BasicVSR(PRESETS["tiny"]), 4, torch.channels_last),
        (make_model(), 5, torch.channels_last_3d),
    ):
        Placement(device=CPU, dtype=torch.float16).put(model)
        kernels = [p for p in model.parameters() if p.ndim == sides]
        assert kernels
        assert all(kernel.is_contiguous(memory_format=layout) for kernel in kernels)
