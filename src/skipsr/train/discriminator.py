"""A discriminator that starts as the transformer, with pooling heads at several depths."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from skipsr.backbones.trainable import Denoiser
from skipsr.skipping.route import Route
from skipsr.train.transformers import blocks_of, copy_transformer, find_transformers

_HEAD = 64  # features of an attention head


@dataclass(frozen=True, slots=True)
class DiscriminatorOutput:
    """How real a latent looks, and the features that say so."""

    logit: Tensor  # scalar, high = real
    features: list[Tensor]  # `k width` at each depth


class TokenPoolingHead(nn.Module):
    """Attention pooling: one learned query attends to all tokens of a depth, and gives a logit."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // _HEAD)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Parameter(torch.randn(1, width) / width**0.5)
        self.key_value = nn.Linear(width, 2 * width)
        self.answer = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, tokens: Tensor) -> Tensor:  # k width -> scalar
        # in full precision: the penalties rest on changes of a logit below what bfloat16 resolves
        with torch.autocast(tokens.device.type, enabled=False):
            normed = self.norm(tokens.to(self.query.dtype))
            query, key, value = (
                rearrange(x, "n (heads dim) -> heads n dim", heads=self.heads)
                for x in (self.query, *self.key_value(normed).chunk(2, -1))
            )
            seen = F.scaled_dot_product_attention(query[None], key[None], value[None])[0]
            return self.answer(rearrange(seen, "heads 1 dim -> (heads dim)")).float().squeeze()


class Discriminator(nn.Module):
    """Tells real from generated clean latents of kept tokens.

    It is given the LR latent and a diffusion time. `depths` are positions along the transformer's
    layers, above 0 up to 1; the published one-step recipe reads after blocks 16, 26 and 36 of 36.
    """

    def __init__(self, model: Denoiser, depths: Sequence[float]) -> None:
        super().__init__()
        double = copy_transformer(model)
        self._denoise = double.velocity  # a function, so that the shared autoencoder is not ours
        self.transformer = double.part("transformer").requires_grad_(True)
        (transformer,) = find_transformers([self.transformer])
        self._blocks = [*blocks_of(transformer)]
        count = len(self._blocks)
        self._read = sorted({max(1, round(depth * count)) - 1 for depth in depths})
        width = next(p.shape[0] for n, p in transformer.named_parameters() if n.endswith("shift"))
        heads = (TokenPoolingHead(width) for _ in self._read)
        self.read_outs = nn.ModuleList(heads)
        self.gather = nn.Identity()  # where sequence-parallel training collects a depth's tokens

    def forward(
        self, cells: Tensor, base: Tensor, time: Tensor, route: Route
    ) -> DiscriminatorOutput:
        """The logit that latents are real.

        Args:
            cells: clean kept cells `k 4 c`.
            base: LR latent `t h w c`, as the model was told it.
            time: scalar in [0, 1000].
            route: of the kept cells.
        """
        features: list[Tensor] = []

        def record(_block: nn.Module, _given: object, result: tuple[Tensor, Tensor]) -> None:
            features.append(self.gather(result[0]))

        hooks = [self._blocks[i].register_forward_hook(record) for i in self._read]
        try:
            velocity = self._denoise(route.compose(cells, base), base, time, route)
        finally:
            for hook in hooks:
                hook.remove()
        logits = [read(tokens) for read, tokens in zip(self.read_outs, features, strict=True)]
        # sharded weights come back for the backward pass when the gradient of their result does
        return DiscriminatorOutput(
            torch.stack(logits).mean() + 0 * velocity.float().sum(), features
        )
