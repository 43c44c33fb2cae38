"""Join two trainings of a network, faithful and crisp, in the one file that `detail` is for.

    python scripts/add_detail.py FAITHFUL CRISP OUT [--routers CALIBRATED]

CRISP is a training against a discriminator that began as FAITHFUL. With --routers those of a
calibrated file come along, and its thresholds: `skipsr calibrate --fit` of OUT as it is without
them.
"""

import argparse
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from skipsr.files import atomic_write

_ROUTERS = ("router_", "calibration")


def join(faithful: Path, crisp: Path, routers: Path | None) -> tuple[dict[str, Tensor], str]:
    """The tensors of the joined file, and what network it is."""
    with safetensors.safe_open(faithful, "pt") as file:
        model = (file.metadata() or {}).get("model", "")
    first, second = (safetensors.torch.load_file(path) for path in (faithful, crisp))
    joined = {name: value for name, value in first.items() if not name.startswith(_ROUTERS)}
    buffers = {"spynet.mean", "spynet.std"}
    joined |= {f"crisp.{name}": second[name].half() for name in list(joined) if name not in buffers}
    if routers is not None:
        found = safetensors.torch.load_file(routers)
        joined |= {name: value for name, value in found.items() if name.startswith(_ROUTERS)}
    return joined, model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("faithful", "crisp", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--routers", type=Path)
    args = parser.parse_args()
    joined, model = join(args.faithful, args.crisp, args.routers)
    with atomic_write(args.out) as part:
        safetensors.torch.save_file(joined, part, metadata={"model": model})


if __name__ == "__main__":
    main()
