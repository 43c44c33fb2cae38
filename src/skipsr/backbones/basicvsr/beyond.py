"""What layers would hold beyond what is run: guessed (`skipping.surroundings`), and traced."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from skipsr.backbones.basicvsr.network import DIRECTIONS, BasicVSR, Direction, Step
from skipsr.skipping.canvas import CanvasPlan
from skipsr.skipping.surroundings import LAYERS, Surroundings, load_surroundings


@dataclass(frozen=True)
class Beyond:
    """The guesses of some layers of a frame: of a trunk's, or of the fused states."""

    slots: Tensor  # of a canvas: `CanvasPlan.skipped_slots`
    code: Tensor  # k r, of the pixels that these show
    layers: Tensor  # layers r c

    @classmethod
    def of(
        cls, surroundings: Surroundings, plan: CanvasPlan, code: Tensor, part: Direction | None
    ) -> "Beyond":
        """Those of a direction's trunk; None: of the fused states."""
        trunk = LAYERS // 2
        first = 2 * trunk if part is None else trunk * DIRECTIONS.index(part)
        return cls(plan.skipped_slots, code, surroundings.layers[first : first + trunk])

    def filler(self, canvas: Tensor) -> Callable[[int], None]:
        """A function that puts what a layer would hold where it belongs on `1 height width c`."""
        flat, layers = canvas.flatten(0, 2), self.layers.unbind()
        rows = self.code.new_empty(len(self.code), canvas.shape[3])  # these stay in the cache

        def fill(layer: int) -> None:
            torch.mm(self.code, layers[layer], out=rows)
            flat.index_copy_(0, self.slots, rows)

        return fill


@torch.no_grad()
def trace(model: BasicVSR, frames: Tensor) -> Tensor:
    """What is held between the layers of a dense run, all layers' channels one after the other.

    Of each trunk, backward then forward, that is what its blocks begin with, and of each block what
    its first layer gives and what its second; then the fused states.

    Args:
        frames: `n t 3 h w` in [0, 1].

    Returns:
        `n t layers*c h/unshuffle w/unshuffle`.
    """
    c = model.config.num_feat
    seen: list[list[Tensor]] = []

    def step_of(direction: Direction) -> Step:
        trunk, held = model.trunk(direction), list[Tensor]()
        seen.append(held)

        def step(frame: Tensor, state: Tensor, _flow: Tensor | None) -> Tensor:
            x = trunk.enter(frame, state)
            layers = [x]
            for block in trunk.blocks:
                y = F.relu(block.conv1(x))
                x = x + block.conv2(y)
                layers += [y, x]
            held.append(torch.cat(layers, 1))
            return x

        return step

    for _ in model.run(frames, *(step_of(direction) for direction in DIRECTIONS)):
        pass
    backward, forward = seen
    found: list[Tensor] = []
    for behind, ahead in zip(reversed(backward), forward, strict=True):
        fused = model.fuse(behind[:, -c:], ahead[:, -c:])
        found.append(torch.cat((behind, ahead, fused), 1))
    return torch.stack(found, 1)


def surroundings_of(name: str, model: BasicVSR) -> Surroundings | None:
    """A model's, where and in the dtype that it is in; None: there are none for these weights."""
    found, known = load_surroundings(name), model.fusion.bias
    if found is None or known is None or found.network.shape != known.shape:
        return None
    found = found.to(known.device, known.dtype)
    return found if torch.equal(found.network, known) else None
