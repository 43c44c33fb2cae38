"""SPyNet: optical flow, refined from a small image to a large one (arXiv 1611.00850)."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipsr.backbones.basicvsr.config import FlowConfig
from skipsr.nn.warp import warp

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class Level(nn.Module):
    """What one level adds to the flow of the coarser one."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((8, *config.channels, 2)):
            layers += [
                nn.Conv2d(before, after, config.kernel, padding=config.kernel // 2),
                nn.ReLU(),
            ]
        self.basic_module = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """`n 8 h w` -> `n 2 h w`, both float32 whatever the precision of the weights."""
        weight = next(self.parameters())
        return self.basic_module(x.to(weight.dtype, memory_format=torch.channels_last)).float()


class SPyNet(nn.Module):
    """Flow between two images."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.basic_module = nn.ModuleList(Level(config) for _ in range(config.levels))
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))

    def forward(self, ref: Tensor, supp: Tensor) -> Tensor:
        """Where in `supp` each pixel of `ref` is found.

        Args:
            ref, supp: `n 3 h w` in [0, 1], RGB.

        Returns:
            `n 2 h w`: to the right and down, in pixels of the `h w` grid, float32.
        """
        return self.between(self.pyramid(ref), self.pyramid(supp), (ref.shape[2], ref.shape[3]))

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Normalised images, coarsest first, of `n 3 h w`."""
        multiple = self.config.multiple
        size = [-(-side // multiple) * multiple for side in image.shape[2:]]
        if list(image.shape[2:]) != size:
            image = F.interpolate(image, size, mode="bilinear", align_corners=False)
        image = (image - self.mean) / self.std
        for _ in range(self.config.finest):
            image = F.avg_pool2d(image, 2)
        images = [image]
        for _ in range(self.config.levels - 1):
            images.append(F.avg_pool2d(images[-1], 2))
        return images[::-1]

    def between(self, refs: list[Tensor], supps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Flow between two pyramids, at the size `(h, w)` of their images."""
        flow = self._refine(refs, supps)
        across, down = size[1] / flow.shape[3], size[0] / flow.shape[2]
        if flow.shape[2:] != size:
            flow = F.interpolate(flow, size, mode="bilinear", align_corners=False)
        return torch.cat((flow[:, :1] * across, flow[:, 1:] * down), 1)

    def _refine(self, refs: list[Tensor], supps: list[Tensor]) -> Tensor:
        n, _, h, w = refs[0].shape
        flow = refs[0].new_zeros(n, 2, h, w)
        for level, (ref, supp) in enumerate(zip(refs, supps, strict=True)):
            if level:
                flow = 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=True)
            warped = warp(supp, flow.permute(0, 2, 3, 1), padding="border")
            flow = flow + self.basic_module[level](torch.cat((ref, warped, flow), 1))
        return flow
