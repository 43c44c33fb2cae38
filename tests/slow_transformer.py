"""The transformer once more, slowly: a loop over windows, plain softmax, all tokens of the grid.

Skipped tokens are computed like the others but are nobody's key; the text is averaged over the
windows that still hold a kept token. It is written from a description of the published network, in
float64, and shares with the package only the weights and the list of windows.
"""

import math

import torch
from torch import Tensor

from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.windows import windows


def slow_velocity(dit: DiT, cells: Tensor, text: Tensor, timestep: float, keep: Tensor) -> Tensor:
    """Velocity `t h w 4 c` of every cell of `t h w 4 c`; right where `keep` (`t h w`) is true."""
    return _Slow(dit).run(cells.double(), text.double(), timestep, keep)


class _Slow:
    def __init__(self, dit: DiT) -> None:
        self.config = dit.config
        self.weights = {name: value.double() for name, value in dit.state_dict().items()}

    def linear(self, x: Tensor, name: str) -> Tensor:
        bias = self.weights.get(f"{name}.bias")
        out = x @ self.weights[f"{name}.weight"].T
        return out if bias is None else out + bias

    def norm(self, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + self.config.eps).sqrt()

    def run(self, cells: Tensor, text: Tensor, timestep: float, keep: Tensor) -> Tensor:
        video = self.linear(cells.flatten(3), "vid_in.proj")
        text = self.linear(text, "txt_in")
        angles = [timestep * math.exp(-math.log(10000) * i / 128) for i in range(128)]
        wave = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles]).double()
        hidden = silu(self.linear(wave, "emb_in.proj_in"))
        embedding = self.linear(silu(self.linear(hidden, "emb_in.proj_hid")), "emb_in.proj_out")
        time = embedding.reshape(-1, 2, 3)  # width, attention or mlp, shift scale gate
        for layer in range(self.config.layers):
            video, text = self.block(layer, video, text, time, keep)
        if self.config.output_norm:
            video = self.norm(video) * self.weights["vid_out_norm.weight"]
            scale = time[:, 0, 1] + self.weights["vid_out_ada.out_scale"]
            video = video * scale + time[:, 0, 0] + self.weights["vid_out_ada.out_shift"]
        out = self.linear(video, "vid_out.proj")
        return out.reshape(*out.shape[:3], 4, -1)

    def branch(self, layer: int, part: str, which: str) -> str:
        """Where the weights of `vid` or `txt` are."""
        name = f"blocks.{layer}.{part}"
        return f"{name}.{which if layer < self.config.separate_layers else 'all'}"

    def modulation(self, layer: int, which: str, slot: int, time: Tensor) -> list[Tensor]:
        name = self.branch(layer, "ada", which)
        sub = ("attn", "mlp")[slot]
        return [
            time[:, slot, i] + self.weights[f"{name}.{sub}_{kind}"]
            for i, kind in enumerate(("shift", "scale", "gate"))
        ]

    def block(
        self, layer: int, video: Tensor, text: Tensor, time: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        text_continues = self.config.text_in_last_layer or layer < self.config.layers - 1
        shift, scale, gate = self.modulation(layer, "vid", 0, time)
        normed, normed_text = self.norm(video) * scale + shift, self.norm(text)
        if text_continues:
            text_shift, text_scale, text_gate = self.modulation(layer, "txt", 0, time)
            normed_text = normed_text * text_scale + text_shift
        attended, attended_text = self.attention(layer, normed, normed_text, keep)
        video = self.feed_forward(layer, "vid", video + attended * gate, time)
        if text_continues:
            text = self.feed_forward(layer, "txt", text + attended_text * text_gate, time)
        return video, text

    def feed_forward(self, layer: int, which: str, x: Tensor, time: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(layer, which, 1, time)
        y = self.norm(x) * scale + shift
        name = self.branch(layer, "mlp", which)
        if self.config.mlp == "swiglu":
            y = silu(self.linear(y, f"{name}.proj_in_gate")) * self.linear(y, f"{name}.proj_in")
        else:
            y = self.linear(y, f"{name}.proj_in")
            y = y / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        return x + self.linear(y, f"{name}.proj_out") * gate

    def heads(self, layer: int, which: str, x: Tensor) -> list[Tensor]:
        """Query, key and value, `... heads dim`; the first two normed."""
        parts = self.linear(x, self.branch(layer, "attn.proj_qkv", which))
        parts = parts.reshape(*x.shape[:-1], 3, self.config.heads, self.config.head_dim)
        q, k, v = parts.unbind(-3)
        q = self.norm(q) * self.weights[self.branch(layer, "attn.norm_q", which) + ".weight"]
        k = self.norm(k) * self.weights[self.branch(layer, "attn.norm_k", which) + ".weight"]
        return [q, k, v]

    def attention(
        self, layer: int, video: Tensor, text: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        tokens = len(text)
        text_q, text_k, text_v = self.heads(layer, "txt", text)
        q, k, v = self.heads(layer, "vid", video)
        frequencies = self.weights[f"blocks.{layer}.attn.rope.rope.freqs"]
        if self.config.rotary == "language":
            places = torch.arange(tokens)[:, None].expand(-1, 3).double()
            text_q, text_k = (turn(x, places, frequencies) for x in (text_q, text_k))
        result = torch.full(
            (*keep.shape, self.config.heads * self.config.head_dim), math.nan
        ).double()
        texts: list[Tensor] = []
        for ts, hs, ws in windows(tuple(keep.shape), self.config.windows, shifted=layer % 2 == 1):
            here = (slice(*ts), slice(*hs), slice(*ws))
            shape = keep[here].shape
            axes = [self.axis(axis, n, tokens) for axis, n in enumerate(shape)]
            places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
            window_q, window_k = (turn(x[here].flatten(0, 2), places, frequencies) for x in (q, k))
            allowed = torch.cat((keep[here].flatten(), torch.ones(tokens, dtype=torch.bool)))
            out = softmax_attention(
                torch.cat((window_q, text_q)),
                torch.cat((window_k, text_k)),
                torch.cat((v[here].flatten(0, 2), text_v)),
                allowed,
            )
            count = len(places)
            result[here] = out[:count].reshape(*shape, -1)
            if keep[here].any():
                texts.append(out[count:])
        mean = torch.stack(texts).mean(0)
        return (
            self.linear(result, self.branch(layer, "attn.proj_out", "vid")),
            self.linear(mean, self.branch(layer, "attn.proj_out", "txt")),
        )

    def axis(self, axis: int, cells: int, tokens: int) -> Tensor:
        """Positions along one side of a whole window."""
        if self.config.rotary == "pixel":
            return torch.tensor([-1 + 2 * i / max(1, cells - 1) for i in range(cells)]).double()
        return torch.arange(cells).double() + (tokens if axis == 0 else 0)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor) -> Tensor:
    """`n heads dim` -> `n (heads dim)`; only `allowed` rows are keys."""
    heads: list[Tensor] = []
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head].T / math.sqrt(q.shape[-1])
        scores[:, ~allowed] = -math.inf
        heads.append(scores.softmax(-1) @ v[:, head])
    return torch.cat(heads, -1)


def turn(x: Tensor, places: Tensor, frequencies: Tensor) -> Tensor:
    """Rotate feature pairs as complex numbers: the pairs of the first axis, second, third."""
    angles = torch.cat([places[:, axis, None] * frequencies for axis in range(3)], 1)[:, None]
    pairs = angles.shape[-1]
    numbers = torch.view_as_complex(x[..., : 2 * pairs].unflatten(-1, (pairs, 2)).contiguous())
    turned = numbers * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((torch.view_as_real(turned).flatten(-2), x[..., 2 * pairs :]), -1)


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))
