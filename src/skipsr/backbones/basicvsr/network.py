"""BasicVSR: two recurrences over a clip, one from each end, and an upsampler (arXiv 2012.02181).
Their residual blocks may be run for some places only; see `routing`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.backbones.basicvsr.blocks import SLOPE, Trunk
from skipsr.backbones.basicvsr.config import SCALE, BasicVSRConfig
from skipsr.backbones.basicvsr.flow import SPyNet
from skipsr.backbones.basicvsr.limits import PAIR_PIXELS
from skipsr.backbones.basicvsr.planes import unfold_onto, upsample_bicubic
from skipsr.backbones.basicvsr.routing import RoutedTrunk, Router
from skipsr.backbones.basicvsr.tiles import BatchExecutor, MaskedExecutor, TileGrid
from skipsr.backbones.trainable import RoutingTrace
from skipsr.nn.convolution import convolve_joined
from skipsr.nn.warp import warp
from skipsr.tracing import reached, span

_PAIRS = 8  # of neighbouring frames between which flows are estimated together, at most
_CRISP = 0.6  # share of the crisp training at detail 1: more adds nothing but a pattern
CALIBRATED = 16  # budgets for which a file holds thresholds
Direction = Literal["backward", "forward"]
DIRECTIONS: tuple[Direction, Direction] = ("backward", "forward")
Step = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Frame, warped state and the flow that warped it (`n h w 2`; None at the start) -> new state."""


class BasicVSR(nn.Module):
    """Video super-resolution by four or, of folded frames, by two; RGB in [0, 1].

    Attributes:
        router_backward, router_forward: choose blocks (`routing`); None in a network that is only
            run dense.
        calibration: budgets (rising shares of the dense FLOPs) and the thresholds for them,
            `k 2`; zeros when it was not calibrated.
        crisp: the same parameters trained against a discriminator, by name; empty where there is
            one training only. They are not the module's own: `blend` takes from them.
    """

    calibration: Tensor
    crisp: Mapping[str, Tensor]

    def __init__(self, config: BasicVSRConfig) -> None:
        super().__init__()
        self.config = config
        c, hr = config.num_feat, config.hr_feat
        self.spynet = SPyNet(config.flow)
        self.backward_trunk = Trunk(c, config.num_block, config.inputs)
        self.forward_trunk = Trunk(c, config.num_block, config.inputs)
        self.fusion = nn.Conv2d(2 * c, c, 1)
        if hr is None:
            self.conv_last = nn.Conv2d(c, 3 * SCALE**2, 3, padding=1)
        else:
            self.upconv1 = nn.Conv2d(c, 4 * c, 3, padding=1)
            self.upconv2 = nn.Conv2d(c, 4 * hr, 3, padding=1)
            self.conv_hr = nn.Conv2d(hr, hr, 3, padding=1)
            self.conv_last = nn.Conv2d(hr, 3, 3, padding=1)
        self.router_backward: Router | None = self.fresh_router()
        self.router_forward: Router | None = self.fresh_router()
        self.register_buffer("calibration", torch.zeros(CALIBRATED, 2))
        self.crisp = {}

    def fresh_router(self) -> Router:
        """An untrained router for one direction."""
        routing = self.config.routing
        outputs = self.config.num_block if routing.reference == "state" else 1
        return Router(self.config.num_feat, outputs)

    def forward(self, frames: Tensor) -> Tensor:
        """`n t 3 h w` -> `n t 3 h*scale w*scale`, not clamped; every block run.

        Raises:
            ValueError: for sides that are no multiples of `config.unshuffle`.
        """
        backward, forward = (self.dense_step(which) for which in DIRECTIONS)
        return torch.stack(list(self.run(frames, backward, forward)), 1)

    def fold(self, frames: Tensor) -> Tensor:
        """What the trunks see: `n t 3 h w` -> `n t inputs h/unshuffle w/unshuffle`.

        Raises:
            ValueError: for sides that are no multiples of `config.unshuffle`.
        """
        fold, (h, w) = self.config.unshuffle, frames.shape[3:]
        if fold == 1:
            return frames
        if h % fold or w % fold:
            raise ValueError(f"frames of {w}x{h} cannot be folded by {fold}")
        return F.pixel_unshuffle(frames, fold)

    def dense_step(self, direction: Direction) -> Step:
        """A step that runs every block everywhere."""
        trunk = self.trunk(direction)
        return lambda frame, state, _flow: trunk(frame, state)

    def trunk(self, direction: Direction) -> Trunk:
        return self.backward_trunk if direction == "backward" else self.forward_trunk

    def run(
        self,
        frames: Tensor,
        backward: Step,
        forward: Step,
        *,
        flows: tuple[Tensor, Tensor] | None = None,
        host: bool = False,
        out: Tensor | None = None,
        strength: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Enlarged frames `n 3 h*scale w*scale` in order, with given steps of the two directions.

        Args:
            frames: `n t 3 h w`, float32.
            flows: as `flows` gives them, if known already.
            host: keep flows and backward states in the host's memory until they are needed.
            out: `t n 3 h*scale w*scale`, where to write the frames, clamped to [0, 1].
            strength: see `reconstruct`.
        """
        device, keep = frames.device, torch.device("cpu") if host else frames.device
        with span("flow"):
            to_next, to_previous = (flow.to(keep) for flow in flows or self.flows(frames))
        with span("backward"):
            folded = self.fold(frames)
            states = self.propagate(folded.flip(1), to_next.flip(1), backward)
            backward_states: list[Tensor] = []
            for state in states:
                backward_states.append(state.to(keep))
                reached(len(backward_states) / 2 / frames.shape[1])
        forward_states = self.propagate(folded, to_previous, forward)
        for i in range(frames.shape[1]):
            with span("forward"):
                state = next(forward_states)
            with span("reconstruct"):
                target, past = None if out is None else out[i], backward_states.pop().to(device)
                frame = self.reconstruct(frames[:, i], past, state, target, strength)
                reached(0.5 + (i + 1) / 2 / frames.shape[1])
            yield frame

    def flows(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Optical flows `n t-1 2 h/unshuffle w/unshuffle` of frames `n t 3 h w`, float32: to the
        next frame, and to the one before, in pixels of their own size.

        The backward recurrence warps by the former, the forward recurrence by the latter.
        """
        if self.config.unshuffle > 1:
            frames = F.avg_pool3d(frames, (1, self.config.unshuffle, self.config.unshuffle))
        n, t, _, h, w = frames.shape
        if t == 1:
            return frames.new_zeros(n, 0, 2, h, w), frames.new_zeros(n, 0, 2, h, w)
        to_next: list[Tensor] = []
        to_previous: list[Tensor] = []
        together = max(1, min(_PAIRS, PAIR_PIXELS // (n * h * w)))
        for start in range(0, t - 1, together):
            some = frames[:, start : start + together + 1]  # with the first of the next ones
            pairs = some.shape[1] - 1
            levels = [
                level.unflatten(0, (n, pairs + 1))
                for level in self.spynet.pyramid(some.flatten(0, 1))
            ]
            first = [level[:, :-1].flatten(0, 1) for level in levels]
            second = [level[:, 1:].flatten(0, 1) for level in levels]
            refs = [torch.cat(both) for both in zip(first, second, strict=True)]
            supps = [torch.cat(both) for both in zip(second, first, strict=True)]
            flows = self.spynet.between(refs, supps, (h, w)).unflatten(0, (2, n, pairs))
            to_next.append(flows[0])
            to_previous.append(flows[1])
        return torch.cat(to_next, 1), torch.cat(to_previous, 1)

    def propagate(self, frames: Tensor, flows: Tensor, step: Step) -> Iterator[Tensor]:
        """States `n c h w` of folded frames `n t inputs h w` in the order of travel.

        `flows[:, i]` leads from frame i + 1 of that order back to frame i.
        """
        n, t, _, h, w = frames.shape
        state = self.fusion.weight.new_zeros(n, self.config.num_feat, h, w)
        state = state.contiguous(memory_format=torch.channels_last)
        for i in range(t):
            flow = flows[:, i - 1].to(frames.device).permute(0, 2, 3, 1) if i else None
            if flow is not None:
                state = warp(state, flow)
            state = step(frames[:, i], state, flow)
            yield state

    def advance(self, frames: Tensor, backward: Step, forward: Step) -> None:
        """Run both trunks over `n t 3 h w` for what their steps note; nothing is enlarged."""
        to_next, to_previous = self.flows(frames)
        frames = self.fold(frames)
        runs = (backward, frames.flip(1), to_next.flip(1)), (forward, frames, to_previous)
        for step, seen, flows in runs:
            for _ in self.propagate(seen, flows, step):
                pass

    def reconstruct(
        self,
        frame: Tensor,
        backward: Tensor,
        forward: Tensor,
        out: Tensor | None = None,
        strength: Tensor | None = None,
    ) -> Tensor:
        """The enlarged frame `n 3 h*scale w*scale`, float32.

        Args:
            frame: `n 3 h w`, not folded.
            backward, forward: the states of both directions, `n c h/unshuffle w/unshuffle`.
            out: where to write the frame, then clamped to [0, 1].
            strength: scalar, how strongly to draw what sets the frame off from the bicubic one;
                None: as it is.
        """
        x = self.fuse(backward, forward)
        if self.config.hr_feat is None:
            return unfold_onto(frame, self.conv_last(x), out, strength)
        base = F.interpolate(frame, scale_factor=self.config.scale, mode="bilinear")
        result = self._upsample(x).float() + base
        if strength is not None:
            result = torch.lerp(upsample_bicubic(frame, self.config.unshuffle), result, strength)
        return result if out is None else torch.clamp(result, 0, 1, out=out)

    def masked(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Masked forward pass: frames refined where masks say, zero elsewhere between layers.

        It is what `regional` computes, for training and as its reference.

        Args:
            frames: `n t 3 h w`.
            masks: `n t 1 h/unshuffle w/unshuffle`, 1 = run, 0 = not.

        Returns:
            `n t 3 h*scale w*scale`, not clamped; it means nothing where the mask is 0.
        """
        to_next, to_previous = self.flows(frames)
        folded, order = self.fold(frames), range(frames.shape[1])
        state: Tensor | None = None
        backward_states: list[Tensor] = []
        for i in reversed(order):
            if state is not None:
                state = warp(state, to_next[:, i].permute(0, 2, 3, 1))
            state = self.backward_trunk.masked(folded[:, i], state, masks[:, i])
            backward_states.append(state)
        state = None
        result: list[Tensor] = []
        for i in order:
            if state is not None:
                state = warp(state, to_previous[:, i - 1].permute(0, 2, 3, 1))
            state = self.forward_trunk.masked(folded[:, i], state, masks[:, i])
            result.append(
                self._masked_frame(frames[:, i], backward_states.pop(), state, masks[:, i])
            )
        return torch.stack(result, 1)

    def _masked_frame(
        self, frame: Tensor, backward: Tensor, forward: Tensor, mask: Tensor
    ) -> Tensor:
        x = self.fuse(backward, forward)
        x = x * mask.to(x.dtype)
        base = F.interpolate(frame, scale_factor=self.config.scale, mode="bilinear")
        if self.config.hr_feat is None:
            return F.pixel_shuffle(self.conv_last(x), SCALE).float() + base
        for up in (self.upconv1, self.upconv2):
            mask = F.interpolate(mask, scale_factor=2)
            x = F.leaky_relu(F.pixel_shuffle(up(x), 2), SLOPE) * mask.to(x.dtype)
        x = F.leaky_relu(self.conv_hr(x), SLOPE) * mask.to(x.dtype)
        return self.conv_last(x).float() + base

    def residual_planes(self, backward: Tensor, forward: Tensor) -> Tensor:
        """What both states add to the bilinear frame, before pixel shuffle: `n 48 h w`."""
        x = self.fuse(backward, forward)
        if self.config.hr_feat is None:
            return self.conv_last(x)
        return F.pixel_unshuffle(self._upsample(x), SCALE)

    def fuse(self, backward: Tensor, forward: Tensor) -> Tensor:
        """Both states, `n c h w` each, as one."""
        fused = convolve_joined(backward, forward, self.fusion)
        return F.leaky_relu(fused, SLOPE, inplace=True)

    def _upsample(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(F.pixel_shuffle(self.upconv1(x), 2), SLOPE)
        x = F.leaky_relu(F.pixel_shuffle(self.upconv2(x), 2), SLOPE)
        return self.conv_last(F.leaky_relu(self.conv_hr(x), SLOPE))

    @torch.no_grad()
    def blend(self, detail: float) -> None:
        """Become what `detail` asks for, 0 to 1.

        From 0.5 on the crisp training is mixed in, up to `_CRISP` of it; below `Strength` makes the
        difference. Weights fine-tuned from one another can be interpolated (network interpolation,
        ESRGAN, arXiv 1809.00219, section 3.4).
        """
        share = _CRISP * max(0.0, 2 * detail - 1)
        for name, parameter in self.named_parameters():
            if name in self.crisp and share:
                crisp = self.crisp[name].to(parameter.device, torch.float32)
                parameter.copy_(torch.lerp(parameter.float(), crisp, share))
        self.crisp = {}

    def part(self, name: Literal["all", "flow"]) -> nn.Module:
        return self.spynet if name == "flow" else self

    def routers(self) -> nn.Module:
        """The backward and the forward router; untrained ones if there are none."""
        if self.router_backward is None or self.router_forward is None:
            self.router_backward, self.router_forward = (
                self.fresh_router().to(self.fusion.weight) for _ in DIRECTIONS
            )
        return nn.ModuleList([self.router_backward, self.router_forward])

    @property
    def aligned_layers(self) -> Sequence[int]:
        """Every `routing.align`-th block, and the last."""
        blocks, every = self.config.num_block, self.config.routing.align
        return [*range(every, blocks, every), blocks]

    def forward_traced(
        self,
        frames: Tensor,
        threshold: Tensor,
        routers: nn.Module | None = None,
        *,
        tile: int | None = None,
    ) -> RoutingTrace:
        """Run a batch, keeping features; see `RoutedRecurrent`."""
        features: list[list[list[Tensor]]] = [[], []]
        steps: list[RoutedTrunk] = []
        h, w = (side // self.config.unshuffle for side in frames.shape[3:])
        stride = self.config.routing.stride
        side = max(h, w) if tile is None else tile
        routing = replace(self.config.routing, tile=side + -side % stride)
        executor = BatchExecutor if tile is None else MaskedExecutor
        both = (self.routers() if routers is None else routers).children()
        for direction, router, kept in zip(DIRECTIONS, both, features, strict=True):

            def watch(depth: int, x: Tensor, kept: list[list[Tensor]] = kept) -> None:
                if depth == 0:
                    kept.append([])
                kept[-1].append(x)

            trunk, limits = self.trunk(direction), threshold[:, None, None]
            steps.append(RoutedTrunk(trunk, router, limits, routing, executor, watch))
        result = torch.stack(list(self.run(frames, *steps)), 1)
        confidences, executed = (
            torch.stack([torch.stack(getattr(step, name)) for step in steps]).flatten(3)
            for name in ("confidences", "executed")
        )
        grid = replace(TileGrid.of(h, w, routing.tile, stride), stride=1)
        return RoutingTrace(
            result, features, confidences, executed, lambda x: grid.means(x).flatten(0, 2)
        )
