"""Join two trainings of a network, faithful and crisp, in the one file that `detail` is for.

    python scripts/add_detail.py FAITHFUL CRISP OUT [--level DATA [--cache CACHE]] [--routers FILE]

CRISP is a training against a discriminator that began as FAITHFUL. With --level what it draws in
flat places is taken from the bias of its last layer: after a short training that is a pattern of
period 4, nearly the same everywhere. With --routers those of a calibrated file come along, and its
thresholds: `skipsr calibrate --fit` of what this writes without them.
"""

import argparse
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from skipsr.backbones.basicvsr.network import BasicVSR
from skipsr.data.clips import ClipDataset
from skipsr.data.footage import Footage
from skipsr.files import atomic_write
from skipsr.loading import load_networks

_ROUTERS = ("router_", "calibration")
_BUFFERS = {"spynet.mean", "spynet.std"}
_BIAS = "conv_last.bias"
_SAMPLES = 60
_SEED = 1  # of the samples
_STEADY = 1.5 / 255  # deviation of 5x5 LR pixels up to which a place is flat
_FEWEST = 200  # flat pixels from which a sample counts


def join(
    faithful: Path, crisp: Path, routers: Path | None, pattern: Tensor | None = None
) -> tuple[dict[str, Tensor], str]:
    """The tensors of the joined file, and what network it is.

    Args:
        pattern: `3*16`, what to take from the crisp network's planes.
    """
    with safetensors.safe_open(faithful, "pt") as file:
        model = (file.metadata() or {}).get("model", "")
    first, second = (safetensors.torch.load_file(path) for path in (faithful, crisp))
    if pattern is not None:
        second[_BIAS] = second[_BIAS].float() - pattern
    joined = {name: value for name, value in first.items() if not name.startswith(_ROUTERS)}
    trained = [name for name in joined if name not in _BUFFERS]
    joined |= {f"crisp.{name}": second[name].half() for name in trained}
    if routers is not None:
        found = safetensors.torch.load_file(routers)
        joined |= {name: value for name, value in found.items() if name.startswith(_ROUTERS)}
    return joined, model


@torch.inference_mode()
def flat_pattern(network: BasicVSR, data: ClipDataset) -> Tensor:
    """What a network adds to the pixels of flat places beyond their mean, `3*16`: the mean over
    samples of footage that have such places.

    Raises:
        ValueError: when there are no flat places.
    """
    found: list[Tensor] = []
    planes: list[Tensor] = []
    hook = network.conv_last.register_forward_hook(lambda _m, _i, result: planes.append(result))
    scale = network.config.scale
    for number in range(_SAMPLES):
        generator = torch.Generator().manual_seed(number)
        low = Footage(scale=scale)(data.sample(number, 0)[None], generator)[0]
        low = rearrange(low, "c t h w -> t c h w")
        planes.clear()
        network(low[None])
        flat = _flat(F.avg_pool2d(low, network.config.unshuffle))
        if flat.sum() >= _FEWEST:
            added = rearrange(torch.cat(planes), "t (c p) h w -> t h w c p", c=3)[flat]
            found.append((added - added.mean(-1, keepdim=True)).mean(0).flatten())
    hook.remove()
    if not found:
        raise ValueError("no flat places in these data")
    return torch.stack(found).mean(0)


def _flat(frames: Tensor) -> Tensor:
    """Where 5x5 neighbourhoods hardly vary: bool `t h w` of frames `t 3 h w`."""
    padded = F.pad(frames, (2, 2, 2, 2), mode="replicate")
    mean = F.avg_pool2d(padded, 5, 1)
    return (F.avg_pool2d(padded**2, 5, 1) - mean**2).amax(1) < _STEADY**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("faithful", "crisp", "out"):
        parser.add_argument(name, type=Path)
    for name in ("level", "cache", "routers"):
        parser.add_argument(f"--{name}", type=Path)
    args = parser.parse_args()
    pattern = None
    if args.level is not None:
        with safetensors.safe_open(args.faithful, "pt") as file:
            network = load_networks(file.metadata()["model"], args.crisp)
        assert isinstance(network, BasicVSR)
        data = ClipDataset(args.level, crop=320, frames=5, seed=_SEED, cache=args.cache)
        pattern = flat_pattern(network, data)
        print(f"pattern: {255 * pattern.square().mean().sqrt():.2f} grey levels")
    joined, model = join(args.faithful, args.crisp, args.routers, pattern)
    with atomic_write(args.out) as part:
        safetensors.torch.save_file(joined, part, metadata={"model": model})


if __name__ == "__main__":
    main()
