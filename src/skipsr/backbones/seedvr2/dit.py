"""The diffusion transformer of SeedVR and SeedVR2 on packed tokens.

Video tokens enter as the kept cells of a `Route` in raster order; a skipped cell costs nothing, in
any layer. Module names are those of the published checkpoints (`vid_in`, `emb_in`, `ada`, ...), so
that loading needs no map.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from skipsr.backbones.seedvr2.attention import TOKENS_TOGETHER, PerModality, WindowAttention
from skipsr.backbones.seedvr2.config import DiTConfig
from skipsr.backbones.seedvr2.cost_law import block_work
from skipsr.backbones.seedvr2.windows import geometry_of
from skipsr.nn.fused import Modulation, gated_add, plus, rms_modulate
from skipsr.nn.mlp import GELUMLP, SwiGLU
from skipsr.nn.norm import RMSNorm, rms_norm
from skipsr.nn.packing import Geometry, PackedLayout
from skipsr.nn.rope import Rotation
from skipsr.skipping.route import Route
from skipsr.tracing import worked
from skipsr.weights.quantized import opened

_CELLS = 4  # latent cells in a token: a 1x2x2 patch
_SINUSOID = 256
_CONSTANT = 40.0  # feature beside unit-variance noise and latents, see `_start_from_base`


class TimeEmbedding(nn.Module):
    """Timestep in [0, 1000] -> the modulation of attention and of the MLP (sections 3.4, 3.5)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(_SINUSOID, width)
        self.proj_hid = nn.Linear(width, width)
        self.proj_out = nn.Linear(width, 6 * width)

    def forward(self, timestep: Tensor) -> Tensor:  # scalar -> 6 * width
        half = _SINUSOID // 2
        place = torch.arange(half, dtype=torch.float32, device=timestep.device)
        angles = timestep.float() * torch.exp(-math.log(10000) / half * place)
        wave = torch.cat((angles.sin(), angles.cos())).to(self.proj_in.bias.dtype)
        return self.proj_out(F.silu(self.proj_hid(F.silu(self.proj_in(wave)))))

    @staticmethod
    def split(embedding: Tensor) -> tuple[Modulation, Modulation]:
        """From six numbers a feature: for two slots (attention, MLP) shift, scale and gate."""
        slots = rearrange(embedding, "(width slot kind) -> slot kind width", slot=2, kind=3)
        slots = slots.contiguous()
        return Modulation(*slots[0]), Modulation(*slots[1])


class Ada(nn.Module):
    """A block's own part of the modulation. There is no "1 +": scales start near one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for sub in ("attn", "mlp"):
            for kind in ("shift", "scale", "gate"):
                start = torch.empty(width).normal_(float(kind == "scale"), width**-0.5)
                self.register_parameter(f"{sub}_{kind}", nn.Parameter(start))

    def of(self, sub: str) -> Modulation:
        return Modulation(
            *(self.get_parameter(f"{sub}_{kind}") for kind in ("shift", "scale", "gate"))
        )


class OutputAda(nn.Module):
    """Shift and scale before the output projection, from the time embedding's attention slot."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_shift = nn.Parameter(torch.empty(width).normal_(0, width**-0.5))
        self.out_scale = nn.Parameter(torch.empty(width).normal_(1, width**-0.5))

    def forward(self, x: Tensor, time: Modulation) -> Tensor:
        return torch.addcmul(plus(time.shift, self.out_shift), x, plus(time.scale, self.out_scale))


class Patch(nn.Module):
    """The projection into or out of tokens, at its published place `.proj`."""

    def __init__(self, features_in: int, features_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(features_in, features_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Block(nn.Module):
    """Attention and MLP, each between a modulated norm and a gate (section 3.6)."""

    def __init__(self, config: DiTConfig, layer: int) -> None:
        super().__init__()
        shared = layer >= config.separate_layers
        self.text_continues = layer < config.layers - 1 or config.text_in_last_layer
        self.eps = config.eps

        def mlp() -> SwiGLU | GELUMLP:
            return (SwiGLU if config.mlp == "swiglu" else GELUMLP)(config.width, config.mlp_ratio)

        self.attn = WindowAttention(config, shared=shared)
        self.mlp = PerModality(mlp, shared=shared, text=self.text_continues)
        self.ada = PerModality(lambda: Ada(config.width), shared=shared, text=self.text_continues)

    def forward(
        self,
        video: Tensor,
        text: Tensor,
        time: tuple[Modulation, Modulation],
        layout: PackedLayout,
        text_rotation: Rotation | None,
    ) -> tuple[Tensor, Tensor]:  # k width, l width
        attended = self.attn(*self.normed(video, text, time), layout, text_rotation)
        video = self.add(video, attended[0], self.ada.video, time)
        video = self.add_mlp(video, self.mlp.video, self.ada.video, time)
        if self.text_continues:
            text = self.add(text, attended[1], self.ada.text, time)
            text = self.add_mlp(text, self.mlp.text, self.ada.text, time)
        return video, text

    def normed(
        self, video: Tensor, text: Tensor, time: tuple[Modulation, Modulation]
    ) -> tuple[Tensor, Tensor]:
        """What attention sees of both."""
        seen = rms_modulate(video, self.eps, time[0], self.ada.video.of("attn"))
        if not self.text_continues:  # the last layer of one family leaves its text as it is
            return seen, rms_norm(text, self.eps)
        return seen, rms_modulate(text, self.eps, time[0], self.ada.text.of("attn"))

    def add(
        self, x: Tensor, attended: Tensor, own: Ada, time: tuple[Modulation, Modulation]
    ) -> Tensor:
        """The gated result of attention added to the stream."""
        return gated_add(x, attended, time[0], own.of("attn"))

    def add_mlp(
        self, x: Tensor, mlp: nn.Module, own: Ada, time: tuple[Modulation, Modulation]
    ) -> Tensor:
        """The same of the MLP; without gradients in place."""
        modulation = time[1], own.of("mlp")
        if torch.is_grad_enabled():
            return gated_add(x, mlp(rms_modulate(x, self.eps, *modulation)), *modulation)
        with opened(mlp, x.dtype):
            for part in x.split(TOKENS_TOGETHER):
                refined = mlp(rms_modulate(part, self.eps, *modulation))
                gated_add(part, refined, *modulation, in_place=True)
        return x


class DiT(nn.Module):
    """Predicts the velocity of the kept cells.

    >>> from skipsr.backbones.seedvr2.config import PRESETS
    >>> dit = DiT(PRESETS["tiny"].dit)
    >>> geometry = dit.geometry(Route.dense((2, 3, 4)), text_tokens=5)
    >>> dit(torch.zeros(24, 4, 9), torch.zeros(5, 32), torch.tensor(1000.0), geometry).shape
    torch.Size([24, 4, 4])
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.vid_in = Patch(_CELLS * config.in_channels, config.width)
        self.txt_in = nn.Linear(config.text_width, config.width)
        self.emb_in = TimeEmbedding(config.width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        if config.output_norm:
            self.vid_out_norm = RMSNorm(config.width, config.eps)
            self.vid_out_ada = OutputAda(config.width)
        self.vid_out = Patch(config.width, _CELLS * config.out_channels)
        self._start_from_base()

    @torch.no_grad()
    def _start_from_base(self) -> None:
        """Start training where velocity = noise - condition: one step returns the LR latent.

        Noise and condition pass the blocks, which add nothing yet, in features of their own. One
        large constant feature keeps the output norm nearly the same for all tokens.
        """
        config = self.config
        channels = config.out_channels
        values = _CELLS * channels
        if config.width <= 2 * values or config.in_channels < 2 * channels:
            return  # no room for both
        into, out = self.vid_in.proj, self.vid_out.proj
        into.weight[: 2 * values + 1] = 0
        into.bias[: 2 * values] = 0
        into.bias[2 * values] = _CONSTANT
        out.weight.zero_()
        out.bias.zero_()
        spread = ((2 * values + _CONSTANT**2) / config.width) ** 0.5 if config.output_norm else 1.0
        for cell in range(_CELLS):
            for channel in range(channels):
                row, column = cell * channels + channel, cell * config.in_channels + channel
                into.weight[row, column] = into.weight[values + row, column + channels] = 1
                out.weight[row, row], out.weight[row, values + row] = spread, -spread
        self.emb_in.proj_out.weight.zero_()
        self.emb_in.proj_out.bias.zero_()
        if config.output_norm:
            self.vid_out_ada.out_scale.fill_(1)
            self.vid_out_ada.out_shift.zero_()
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("_gate"):
                parameter.fill_(1)
            elif ".proj_out." in name:
                parameter.zero_()

    @property
    def frequencies(self) -> Tensor:
        """Rotary frequencies of all layers; read from the checkpoint, never recomputed."""
        block = self.blocks[0]
        assert isinstance(block, Block)
        return block.attn.rope.rope.get_buffer("freqs")

    def geometry(self, route: Route, text_tokens: int) -> Geometry:
        """Windows, packed orders and rotary angles of a clip: once for all layers and steps."""
        config = self.config
        return geometry_of(route, text_tokens, config.windows, config.rotary, self.frequencies)

    def forward(self, cells: Tensor, text: Tensor, timestep: Tensor, geometry: Geometry) -> Tensor:
        """Velocity of the kept cells.

        Args:
            cells: `k 4 c`, c = `in_channels`: the kept 1x2x2 patches of noisy latent, condition,
                mask.
            text: `l text_width`, conditioning tokens.
            timestep: scalar in [0, 1000].
            geometry: of this clip's route.

        Returns:
            `k 4 c`, c = `out_channels`.
        """
        video = self.vid_in(cells.flatten(1))
        text = self.txt_in(text)
        time = self.emb_in.split(self.emb_in(timestep))
        for layer, block in enumerate(self.blocks):
            video, text = block(
                video, text, time, geometry.layouts[layer % 2], geometry.text_rotation
            )
            worked(len(video) * block_work(self.config))
        if self.config.output_norm:
            video = self.vid_out_ada(self.vid_out_norm(video), time[0])
        return rearrange(self.vid_out(video), "k (cells c) -> k cells c", cells=_CELLS)
