"""One leg, in this process: python -m gpu.leg '{"module": ..., "name": ..., ...}'."""

import json
import sys
from importlib import import_module
from pathlib import Path

import torch
from gpu.figures import Figures, has

from skipsr.devices import resolve
from skipsr.errors import Interrupted
from skipsr.settings import RuntimeSettings

UNFINISHED = 75  # exit code of a leg that has to go on


def main() -> int:
    told = json.loads(sys.argv[1])
    if told["tiny"]:
        torch.set_num_threads(1)
    torch.manual_seed(0)
    device, _ = resolve(RuntimeSettings())
    figures = Figures(Path(told["path"]), told["tiny"], device)
    if told["needs"] and not has(told["needs"]):
        figures.leave_out("all of it", f"there is no {told['needs']} here")
        return 0
    given = {key: Path(v) if key in ("data", "start") else v for key, v in told["given"].items()}
    try:
        with figures.trying(told["name"]):
            getattr(import_module(f"gpu.{told['module']}"), told["name"])(figures, **given)
    except Interrupted:
        return UNFINISHED
    return 1 if figures.errors else 0


if __name__ == "__main__":
    sys.exit(main())
