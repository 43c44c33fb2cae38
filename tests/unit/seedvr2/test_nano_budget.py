"""What `nano` may cost, so that it stays fit for a laptop."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from skipsr.backbones.seedvr2.config import PRESETS
from skipsr.backbones.seedvr2.model import SeedVR2

FRAMES, HEIGHT, WIDTH = 17, 352, 640
WINDOW = 2 * 15 * 27  # tokens of the largest window at this size
NANO = PRESETS["nano"]


def nano() -> SeedVR2:
    with torch.device("meta"):
        return SeedVR2(NANO)


def test_all_parts_together_have_at_most_ten_million_parameters() -> None:
    assert sum(p.numel() for p in nano().parameters()) <= 10_000_000


def test_the_autoencoder_costs_at_most_half_a_megaflop_per_pixel() -> None:
    model = nano()
    frames = torch.empty(1, 3, FRAMES, HEIGHT, WIDTH, device="meta")
    with FlopCounterMode(display=False) as counter:
        model.decode(model.encode(frames), frames)
    assert 0 < counter.get_total_flops() / (FRAMES * HEIGHT * WIDTH) <= 500_000


def test_the_transformer_costs_at_most_sixty_megaflop_per_token() -> None:
    config = NANO.dit
    blocks = nano().dit.blocks
    weights = sum(p.numel() for name, p in blocks.named_parameters() if ".txt." not in name)
    attention = 4 * config.heads * config.head_dim * (WINDOW + NANO.text_tokens) * config.layers
    assert 2 * weights + attention <= 60_000_000
