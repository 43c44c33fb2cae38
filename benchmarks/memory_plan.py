"""What does the planner choose, and is its law true?

    python benchmarks/memory_plan.py [--models seedvr2:3b seedvr2:7b]

For every size and memory the plan is made, and each stage is run in the planned way on the meta
device, where bytes of live tensors are counted call by call. No GPU is used and nothing is timed.
Writes `benchmarks/results/memory_plan.json` and `.md`.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from record import HERE, save

from skipsr.backbones import family
from skipsr.backbones.seedvr2.assemble import place_networks
from skipsr.backbones.seedvr2.memory_plan import LONGEST, MemoryLaw, Ways
from skipsr.backbones.seedvr2.model import SeedVR2
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler
from skipsr.settings import SkipSettings
from skipsr.skipping.route import Route
from skipsr.timeline import MemoryPlan
from skipsr.weights.place import Placement

sys.path.insert(0, str(HERE.parent / "tests"))
from live_bytes import LiveBytes, counting  # noqa: E402

GIB = 2**30
SIZES = {"720p": (720, 1280), "1080p": (1080, 1920), "1440p": (1440, 2560), "4K": (2160, 3840)}
MEMORIES = (8, 12, 16, 24, 80)
COUNTED = 9  # frames of encode and decode: further ones add pictures, and no layers
META = torch.device("meta")


@cache
def counted(name: str, size: tuple[int, int], frames: int, ways: Ways) -> Mapping[str, int]:
    """Peak bytes of each stage, weights included."""
    backbone, preset = family(name)
    with torch.device("meta"):
        model = SeedVR2(backbone.presets[preset]).requires_grad_(False)
        model.predictor = None
    plan = MemoryPlan(window=frames, stages={}, ways=ways)
    place_networks(model, Placement(device=META, dtype=torch.bfloat16), plan)
    upscaler = SeedVR2Upscaler(name, model, SkipSettings(dense=True))
    upscaler.arrange(plan)
    height, width = (upscaler.limits.pad_side(side) for side in size)
    few = min(frames, COUNTED)
    pixels = torch.empty(1, 3, few, height, width, device=META)
    held = [p for p in model.parameters()]
    away = {
        "device": {},
        "in turn": {"encode": model.dit, "denoise": model.vae, "decode": model.dit},
        "streamed": dict.fromkeys(("encode", "denoise", "decode"), model.dit.blocks),
    }[ways.weights]
    more = 0 if ways.bounds else 12 * height * width * (frames - few)
    found: dict[str, int] = {}

    def begin(live: LiveBytes, stage: str) -> None:
        elsewhere = set(away[stage].parameters()) if stage in away else set()
        live.given(*(p for p in held if p not in elsewhere))
        if ways.bounds is None:
            live.given(pixels)

    with counting() as live:
        begin(live, "encode")
        model.encode(pixels, ways.bounds)
        found["encode"] = live.peak + more
    latents = (frames + 2) // 4 + 1
    with counting() as live:
        begin(live, "denoise")
        latent = torch.empty(latents, height // 8, width // 8, 16, device=META)
        route = Route.dense((latents, height // 16, width // 16))
        text = model.text.positive.to(torch.bfloat16)
        cells = torch.empty(route.kept, 4, 33, dtype=torch.bfloat16, device=META)
        geometry = model.dit.geometry(route, len(text))
        model.dit(cells, text, torch.empty((), device=META), geometry)
        found["denoise"] = live.peak + more + (12 * height * width * few if not ways.bounds else 0)
        del latent
    with counting() as live:
        begin(live, "decode")
        part = torch.empty((few + 2) // 4 + 1, height // 8, width // 8, 16, device=META)
        upscaler._decode_whole(part, pixels, ways.bounds)
        found["decode"] = live.peak + more
        assert live.largest < 2**31
    return found
