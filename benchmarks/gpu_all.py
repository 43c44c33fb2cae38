"""Everything that a sitting at a GPU should run, in legs of nine minutes at most.

    python benchmarks/gpu_all.py                       # what is not done yet, one leg after another
    python benchmarks/gpu_all.py --minutes 9           # as many legs as surely fit in that time
    python benchmarks/gpu_all.py --only job,memory_16  # these, done or not
    python benchmarks/gpu_all.py --train skipvsr-nano --data CLIPS     # legs of training, too
    python benchmarks/gpu_all.py --tiny --out DIR      # the same code on a CPU, in minutes

Each leg is a process of its own and writes `LEG.json` in `--out` after every figure; `state.json`
there says which are done, so that the same command goes on where a sitting ended. Weights of large
networks are random. PyAV, tyro and rich are not needed.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LONGEST = 540  # seconds of a leg
UNFINISHED = 75  # exit code of a leg that has to go on, as in gpu/leg.py


@dataclass(frozen=True, slots=True)
class Leg:
    """A function of a module here, by name, so that listing legs imports no torch."""

    module: str
    name: str
    seconds: int = LONGEST  # after which it is ended
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    needs: str = ""  # a library, without which it is left out


LEGS = {
    "tests": Leg("models", "tests"),
    "kernels": Leg("levers", "kernels", 240),
    "regions": Leg("levers", "regions", 120),
    "layouts": Leg("levers", "layouts", 120),
    "ceilings": Leg("levers", "ceilings", 60),
    "mechanisms": Leg("models", "mechanisms"),
    "step_7b": Leg("models", "step_7b", 300),
    "layer": Leg("models", "layer", 120),
    "autoencoder": Leg("models", "autoencoder", 180),
    "recurrent": Leg("models", "recurrent", 300),
    "processor": Leg("models", "processor", 240),
    "job": Leg("models", "job"),
    "long_job": Leg("models", "long_job"),
    "files": Leg("files", "jobs", 180, needs="av"),
    "executions": Leg("models", "executions", 300),
    "memory_12": Leg("models", "memory", given={"gib": 12}),
    "memory_16": Leg("models", "memory", given={"gib": 16}),
    "memory_24": Leg("models", "memory", given={"gib": 24}),
    "convolutions": Leg("levers", "convolutions", 180),
    "long_convolution": Leg("levers", "long_convolution", 120),
    "norm_silu": Leg("levers", "norm_silu", 180),
    "compiled_layer": Leg("levers", "compiled_layer", 300),
    "steps": Leg("training", "steps", 300),
}


def start_leg(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own; returns what the state keeps of it."""
    leg = legs(options)[name]
    told = {
        "module": leg.module,
        "name": leg.name,
        "given": {key: str(v) if isinstance(v, Path) else v for key, v in leg.given.items()},
        "needs": leg.needs,
        "path": str(options.out.resolve() / f"{name}.json"),
        "tiny": options.tiny,
    }
    command = [sys.executable, "-m", "gpu.leg", json.dumps(told)]
    print(name, flush=True)
    began = time.monotonic()
    try:
        code: int | None = subprocess.run(command, timeout=leg.seconds, cwd=HERE).returncode
    except subprocess.TimeoutExpired:
        code = None
    ends = {0: "done", UNFINISHED: "unfinished", None: "out of time"}
    seconds = round(time.monotonic() - began, 1)
    return {"end": ends.get(code, "failed"), "code": code, "seconds": seconds}


def legs(options: argparse.Namespace) -> dict[str, Leg]:
    """All there are."""
    if not options.train:
        return dict(LEGS)
    start = options.start and options.start.resolve()
    given = {"name": options.train, "data": options.data.resolve(), "seconds": LONGEST - 60}
    given |= {"start": start} if start else {}
    return {**LEGS, f"train_{options.train}": Leg("training", "recipe", LONGEST, given)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=str(__doc__).splitlines()[0], formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu")
    parser.add_argument("--only", default="", help="names of legs, with commas")
    parser.add_argument("--minutes", type=float, help="begin no leg that may end later")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    parser.add_argument("--train", help="a recipe to train, leg by leg")
    parser.add_argument("--data", type=Path, help="folder of clips for it")
    parser.add_argument("--start", type=Path, help="weights that it goes on from")
    options = parser.parse_args()
    if options.train and options.data is None:
        parser.error("--train needs --data")
    every = legs(options)
    wanted = [name for name in options.only.split(",") if name]
    if unknown := set(wanted) - every.keys():
        parser.error(f"there is no leg {', '.join(unknown)}; there are {', '.join(every)}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "state.json"
    state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    began = time.monotonic()
    for name, leg in every.items():
        if name not in wanted if wanted else state.get(name, {}).get("end") == "done":
            continue
        left = None if options.minutes is None else 60 * options.minutes + began - time.monotonic()
        if left is not None and left < leg.seconds:
            print(f"{name}: not begun, it may take {leg.seconds} s and {left:.0f} are left")
            continue
        state[name] = start_leg(name, options)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(state, indent=1) + "\n")
        part.replace(path)
        print(f"    {state[name]['end']}, {state[name]['seconds']} s", flush=True)
    for name in every:
        print(f"{name:20} {state.get(name, {}).get('end', 'to be done')}")
    return 0 if all(state.get(name, {}).get("end") == "done" for name in wanted or every) else 1


if __name__ == "__main__":
    sys.exit(main())
