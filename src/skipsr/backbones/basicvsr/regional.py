"""BasicVSR on masked regions: one mask per frame for all layers (DESIGN.md, "Regions").

The kept part of a frame lies on a small canvas (`skipping.regions`), on which every layer is one
call. Where nothing is run the state is zero, but where the picture stands still it is carried on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.backbones.basicvsr.beyond import Beyond
from skipsr.backbones.basicvsr.blocks import SLOPE
from skipsr.backbones.basicvsr.canvas_layers import convolve, run_blocks, run_layer
from skipsr.backbones.basicvsr.config import SCALE
from skipsr.backbones.basicvsr.frame_masks import FrameMasks
from skipsr.backbones.basicvsr.looks import Looks
from skipsr.backbones.basicvsr.network import DIRECTIONS, BasicVSR, Direction
from skipsr.backbones.basicvsr.planes import bicubic_planes, bilinear_kernels, show
from skipsr.nn.convolution import convolve_joined
from skipsr.nn.warp import sample_rows
from skipsr.skipping.canvas import CanvasPlan
from skipsr.skipping.canvas_moves import doubled
from skipsr.skipping.feather import RAMP, feather_axes
from skipsr.skipping.light import LightUpsampler
from skipsr.skipping.need import CELL
from skipsr.skipping.route import over_pixels
from skipsr.skipping.surroundings import Surroundings
from skipsr.tracing import reached, span

GUESSED_RAMP = (0.5,)
"""How what is run fades out beside the base (see `feather`), where what lies beyond is guessed."""
LIGHT_RAMP = tuple(i / 9 for i in range(1, 9))
"""The same where it is not, but the base is the light upsampler's: nearly as good there."""


@dataclass(frozen=True)
class State:
    """The recurrent state of one direction after a frame, on a canvas."""

    plan: CanvasPlan
    middle: Tensor  # 1 h' w' c
    table: Tensor  # rows c: the middle's pixels, then those that are carried on
    row_of_pixel: Tensor  # of the table; unknown pixels have one of zeros


@torch.inference_mode()
def run_regions(
    model: BasicVSR,
    frames: Tensor,
    masks: Sequence[FrameMasks],
    out: Tensor | None = None,
    *,
    light: LightUpsampler | None = None,
    surroundings: Surroundings | None = None,
    host: bool = False,
    strength: Tensor | None = None,
) -> Iterator[Tensor]:
    """Enlarged frames `3 h*scale w*scale` of one clip, float32 in [0, 1], one after the other.

    Args:
        frames: `t 3 h w` in [0, 1], float32; sides are multiples of the model's `unshuffle`.
        masks: of each frame, in cells of `CELL` places: folded pixels.
        out: `t 3 h*scale w*scale` float32, where to write the frames. None: each takes the place
            of the one before, and has to be used before the next is asked for.
        light: enlarges what is not run; None: that is bicubic.
        surroundings: guess from the light upsampler's layers what the network's hold just beyond
            what is run; None: that is zero.
        host: keep flows and backward states in the host's memory until they are needed.
        strength: see `BasicVSR.reconstruct`.
    """
    native = [model.config.scale * side for side in frames.shape[2:]]
    shown = frames.new_empty(1, 3, *native) if out is None else out
    keep = torch.device("cpu") if host else frames.device
    run = _Run(model, frames, masks, light, surroundings, keep)
    with span("flow"):
        to_next, to_previous = (flow[0].to(keep) for flow in run.flows())
    backward_states: list[Tensor] = []
    with span("backward"):
        state: State | None = None
        for i in reversed(range(len(frames))):
            still = masks[i + 1].still if i + 1 < len(frames) else None
            run.look(i)
            state = run.step("backward", i, state, to_next[i] if state else None, still)
            backward_states.append(run.laid_out(i, state).to(keep))
            reached(len(backward_states) / len(frames) / 2)
    state = None
    for i in range(len(frames)):
        with span("forward"):
            flow = to_previous[i - 1] if state else None
            state = run.step("forward", i, state, flow, masks[i].still)
        with span("reconstruct"):
            backward = backward_states.pop().to(frames.device)
            result = shown[min(i, len(shown) - 1)]
            run.compose(i, run.reconstruct(i, backward, state.middle), result, strength)
            if i + 1 == len(masks) or masks[i + 1].regions is not masks[i].regions:
                masks[i].regions.forget()  # the finest levels are large
            reached((1 + (i + 1) / len(frames)) / 2)
        yield result


class _Run:
    """One clip on its way through the network."""

    def __init__(
        self,
        model: BasicVSR,
        frames: Tensor,
        masks: Sequence[FrameMasks],
        light: LightUpsampler | None,
        surroundings: Surroundings | None,
        keep: torch.device,
    ) -> None:
        self._model, self._frames, self._masks = model, frames, masks
        self._surroundings = surroundings
        self._ramp = RAMP if light is None else LIGHT_RAMP if surroundings is None else GUESSED_RAMP
        folded = model.fold(frames[None])[0]
        self._size = (folded.shape[2], folded.shape[3])  # places
        self._looks = None
        if light is not None:
            self._looks = Looks(light, surroundings, masks, self._size, keep)
        self._pixels = folded.permute(0, 2, 3, 1).flatten(1, 2).contiguous()  # t (h w) inputs
        self._like = model.fusion.weight
        self._shown: Tensor | None = None  # planes of the frame before, where they may be needed

    def flows(self) -> tuple[Tensor, Tensor]:
        """See `BasicVSR.flows`; none where no neighbours are run."""
        frames = self._frames
        if not any(len(mask.regions_in(d).runs) for mask in self._masks for d in DIRECTIONS):
            nothing = frames.new_zeros(1, len(frames) - 1, 2, *self._size)
            return nothing, nothing
        return self._model.flows(frames[None])

    def _plan(self, i: int, pixels: int = CELL, direction: Direction = "forward") -> CanvasPlan:
        height, width = (side * pixels // CELL for side in self._size)
        return self._masks[i].regions_in(direction).at(pixels, (height, width), self._frames.device)

    def look(self, i: int) -> None:
        """Let the light upsampler see frame `i`, once for all that follows."""
        if self._looks is not None:
            self._looks.look(i, self._pixels[i])

    def _beyond(self, i: int, direction: Direction, part: Direction | None) -> Beyond | None:
        """Guesses for the canvas of a direction; see `Beyond.of`."""
        if self._looks is None or self._surroundings is None:
            return None
        code = self._looks.code(i, direction, self._frames.device)
        if code is None:
            return None
        return Beyond.of(self._surroundings, self._plan(i, direction=direction), code, part)

    def step(
        self,
        direction: Direction,
        i: int,
        before: State | None,
        flow: Tensor | None,
        still: Tensor | None,
    ) -> State:
        """The state of frame `i` from that of the frame travelled before and the flow `2 h w`.

        `still` cells have not changed since.
        """
        plan = self._plan(i, direction=direction)
        trunk, beyond = self._model.trunk(direction), self._beyond(i, direction, direction)
        if len(plan.kept_slots):
            x = self._entering(i, plan, before, flow)
            padding = (1, 1) if plan.full else plan.padding
            x = F.leaky_relu_(convolve(x, trunk.main[0], padding), SLOPE)
            x = run_blocks(trunk, plan, x, beyond)
        else:
            x = self._like.new_zeros(1, *plan.middle_shape, self._model.config.num_feat)
        return self._carry(plan, x, before, still)

    def _entering(
        self, i: int, plan: CanvasPlan, before: State | None, flow: Tensor | None
    ) -> Tensor:  # 1 height width inputs+c
        """The frame and the warped state at all slots of the canvas that are in the picture; of a
        full one the picture alone."""
        config = self._model.config
        inputs = config.inputs
        pixels = plan.kept_pixels if plan.full else plan.nearest_pixel_of_slot
        wide = self._like.new_empty(len(pixels), inputs + config.num_feat)
        wide[:, :inputs] = self._pixels[i].index_select(0, pixels)
        if before is None or flow is None:
            wide[:, inputs:] = 0
        else:
            moved = flow.to(wide.device).flatten(1).index_select(1, pixels)
            across, down = pixels % self._size[1] + moved[0], pixels // self._size[1] + moved[1]
            rows = before.row_of_pixel
            wide[:, inputs:] = sample_rows(before.table, rows, self._size, across, down)
        if plan.full:
            return wide.view(1, *plan.middle_shape, -1)
        wide.index_fill_(0, plan.outside_slots, 0)
        return wide.view(1, *plan.shape, -1)

    def _carry(
        self, plan: CanvasPlan, x: Tensor, before: State | None, still: Tensor | None
    ) -> State:
        """The state after a frame; places that stand still and are not run keep what they had."""
        table, row_of_pixel = x.flatten(0, 2), plan.middle_of_pixel
        if before is None or still is None or plan.full:
            return State(plan, x, table, row_of_pixel)
        skipped = row_of_pixel == len(table) - 1
        unchanged = over_pixels(still, CELL, self._size).flatten().to(skipped.device)
        carried = (unchanged & skipped).nonzero()[:, 0]
        row_of_pixel = row_of_pixel.clone()
        row_of_pixel[carried] = len(table) + torch.arange(len(carried), device=carried.device)
        rows = before.table.index_select(0, before.row_of_pixel[carried])
        return State(plan, x, torch.cat((table, rows)), row_of_pixel)

    def laid_out(self, i: int, state: State) -> Tensor:
        """A backward state in the middle of the forward canvas, `1 h' w' c`, where it is read."""
        plan = self._plan(i)
        if state.plan is plan:
            return state.middle
        pixels = plan.nearest_pixel_of_slot.view(plan.shape)[plan.middle].flatten()
        rows = state.table.index_select(0, state.row_of_pixel[pixels])
        return rows.view(1, *plan.middle_shape, -1)

    def reconstruct(self, i: int, backward: Tensor, forward: Tensor) -> Tensor:
        """What both states give of the places that are run, as planes `k 48`, float32."""
        model, plan = self._model, self._plan(i)
        if not len(plan.kept_slots):
            return backward.new_empty(0, 3 * SCALE**2, dtype=torch.float32)
        backward, forward = (state.permute(0, 3, 1, 2) for state in (backward, forward))
        fused = convolve_joined(backward, forward, model.fusion).permute(0, 2, 3, 1)
        F.leaky_relu_(fused, SLOPE)
        if model.config.hr_feat is None:
            beyond = self._beyond(i, "forward", None)
            residual = run_layer(plan, fused, model.conv_last, beyond)
            return _body(plan, self._bilinear(i, plan).add_(residual))
        x, pixels = run_layer(plan, fused, model.upconv1), 2 * CELL
        finer, finest = self._plan(i, pixels), self._plan(i, 2 * pixels)
        x = convolve(self._finer(i, x, pixels), model.upconv2, finer.padding)
        canvas = self._finer(i, x, 2 * pixels)
        x = F.leaky_relu_(convolve(canvas, model.conv_hr, finest.padding), SLOPE)
        x = run_layer(finest, x, model.conv_last)
        return self._folded(i, _body(finest, x), finest).add_(_body(plan, self._bilinear(i, plan)))

    def _finer(self, i: int, x: Tensor, pixels: int) -> Tensor:
        """The canvas of a level, from four channels for each in the middle of the one before."""
        finer = self._plan(i, pixels)
        index = doubled(self._plan(i, pixels // 2), finer, self._size[1] * pixels // CELL)
        x = F.leaky_relu_(F.pixel_shuffle(x.permute(0, 3, 1, 2), 2), SLOPE).permute(0, 2, 3, 1)
        rows = x.flatten(0, 2).index_select(0, index.clamp_min(0))
        return rows.masked_fill_((index < 0)[:, None], 0).view(1, *finer.shape, -1)

    def _folded(self, i: int, pixels: Tensor, plan: CanvasPlan) -> Tensor:
        """Pixels of the result, `k c` in the order of their plan, as planes of LR pixels."""
        width, coarse = self._size[1] * SCALE, self._plan(i)
        y, x = plan.kept_pixels // width, plan.kept_pixels % width
        rank = torch.empty(self._size[0] * self._size[1], dtype=torch.long, device=y.device)
        rank[coarse.kept_pixels] = torch.arange(len(coarse.kept_pixels), device=y.device)
        cell = rank[y // SCALE * self._size[1] + x // SCALE]
        planes = pixels.new_empty(len(coarse.kept_pixels), 3, SCALE**2)
        planes[cell, :, y % SCALE * SCALE + x % SCALE] = pixels
        return planes.flatten(1)

    def compose(self, i: int, computed: Tensor, out: Tensor, strength: Tensor | None) -> None:
        """Write frame `i` to `out`: the base, what stands still, and what was computed."""
        mask, plan = self._masks[i], self._plan(i)
        following = self._masks[i + 1] if i + 1 < len(self._masks) else None
        if mask.regions.whole and strength is None:
            planes = computed
        else:
            planes, plain = self._base(i, strength)
            if plain is not None and strength is not None:
                computed = torch.lerp(plain, computed, strength)
            if len(plan.kept_slots):
                planes.index_copy_(0, plan.kept_pixels, self._blended(mask, plan, planes, computed))
        needed = following is not None and following.still is not None
        self._shown = planes if needed else None
        show(planes.unflatten(0, self._size), out)

    def _base(self, i: int, strength: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What frame `i` shows where it is not run, `h*w 48`, elsewhere it holds anything; and if
        there is a strength, which asks for it, the plain picture of the places that are run."""
        mask, height = self._masks[i], self._size[0]
        band = mask.band(height) if strength is None else slice(0, height)
        if band.start == band.stop:  # all else stands still
            assert self._shown is not None
            return self._shown, None
        fold, plain = self._model.config.unshuffle, None
        planes = bicubic_planes(self._frames[i : i + 1], fold, band)[0]  # h w 48
        if strength is not None:
            plain = planes.flatten(0, 1).index_select(0, self._plan(i).kept_pixels)
        if self._looks is not None:
            self._looks.add_to(planes, i, band, strength)
        if mask.still is None or self._shown is None:
            return planes.flatten(0, 1), plain
        asked = mask.asked_places(self._size).to(planes.device)
        rows = planes.flatten(0, 1).index_select(0, asked - band.start * self._size[1])
        return self._shown.index_copy_(0, asked, rows), plain

    def _bilinear(self, i: int, plan: CanvasPlan) -> Tensor:
        """The bilinear frame as planes in the middle of its canvas, `1 h' w' 48`, float32."""
        canvas = self._around(i, plan).permute(0, 3, 1, 2)
        kernels = bilinear_kernels(self._model.config.unshuffle, canvas.device)
        with torch.autocast(canvas.device.type, enabled=False):
            return F.conv2d(canvas, kernels, padding=plan.padding).permute(0, 2, 3, 1)

    def _around(self, i: int, plan: CanvasPlan) -> Tensor:
        """Folded pixels on a canvas, `1 height width inputs`, those of the border repeated."""
        fold = self._model.config.unshuffle
        rows, pixels = self._pixels[i], plan.nearest_pixel_of_slot
        if fold > 1:  # what a place holds of the border are some of its pixels only
            padded = F.pad(self._frames[i : i + 1], (fold,) * 4, mode="replicate")
            rows = F.pixel_unshuffle(padded, fold)[0].flatten(1).T.contiguous()
            pixels = plan.framed_pixel_of_slot(self._size)
        return rows.index_select(0, pixels).view(1, *plan.shape, -1)

    def _blended(
        self, mask: FrameMasks, plan: CanvasPlan, planes: Tensor, computed: Tensor
    ) -> Tensor:
        """`computed`, `k 48`, with the base showing through beside cells that show it."""
        if mask.refined is None or bool(mask.refined.all()):
            return computed
        rows, columns = (
            axis.to(planes.device).unflatten(2, (CELL, SCALE))  # rows columns 4 4
            for axis in feather_axes(mask.refined, CELL * SCALE, self._ramp)
        )
        faded = (rows.amin(3) < 1)[..., None] | (columns.amin(3) < 1)[:, :, None]
        faded = faded.transpose(1, 2).flatten(2).flatten(0, 1)[: self._size[0], : self._size[1]]
        soft = faded.flatten().index_select(0, plan.kept_pixels).nonzero()[:, 0]
        pixel = plan.kept_pixels.index_select(0, soft)
        y, x = pixel // self._size[1], pixel % self._size[1]
        cell = CELL * (y // CELL * rows.shape[1] + x // CELL)
        down = rows.flatten(0, 2).index_select(0, cell + y % CELL)
        across = columns.flatten(0, 2).index_select(0, cell + x % CELL)
        share = torch.einsum("ki,kj->kij", down, across).flatten(1).repeat(1, 3)
        mixed = computed.index_select(0, soft)
        mixed = torch.lerp(planes.index_select(0, pixel), mixed, share)
        return computed.index_copy_(0, soft, mixed)


def _body(plan: CanvasPlan, x: Tensor) -> Tensor:
    """The pixels that are run, `k c` float32, of the middle."""
    return x.flatten(0, 2).index_select(0, plan.middle_of_kept).float()
