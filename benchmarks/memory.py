"""How much of its footprint does a window really take?

    python benchmarks/memory.py [--model skipvsr:nano] [--sizes 160x90x24 320x180x12 640x360x6]

Each size (width, height, frames) is enlarged by four and by two in a process of its own, with
everything computed and with the default; its peak of resident memory is set beside what
`Limits.footprint` tells beforehand. Writes `benchmarks/results/memory_MODEL.json`.
"""

import argparse
import json
import subprocess
import sys

from record import save

from skipsr.limits import Footprint
from skipsr.loading import find_model

RUN = """
import json, sys, torch
from skipsr.memory import ask_for_huge_pages
ask_for_huge_pages()
from skipsr import Clip, SkipSettings, load_upscaler
from skipsr.tracing import peak_memory_gib
model, height, width, frames, scale, dense = json.loads(sys.argv[1])
noise = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
noise[:, : height // 2] = 0.5
clip = Clip(torch.stack([noise.roll(i, 2) for i in range(frames)]))
upscaler = load_upscaler(model, SkipSettings(dense=dense))
upscaler.upscale(clip, (scale * height, scale * width))
print(round(peak_memory_gib() * 2**30))
"""


def peak(*arguments: object) -> int:
    """Bytes."""
    command = [sys.executable, "-c", RUN, json.dumps(arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="skipvsr:nano")
    parser.add_argument("--sizes", nargs="+", default=["160x90x24", "320x180x12", "640x360x6"])
    options = parser.parse_args()
    limits = find_model(options.model).limits
    rows: list[dict[str, object]] = []
    for text in options.sizes:
        width, height, frames = map(int, text.split("x"))
        for scale in (4, 2):
            size = scale * height, scale * width
            footprint = limits.towards((height, width), size).footprint
            assert isinstance(footprint, Footprint), (
                f"the footprint of {options.model} is not known"
            )
            told = footprint.of(frames, width * height, width * height * scale**2)
            for dense in (True, False):
                taken = peak(options.model, height, width, frames, scale, dense)
                rows.append(
                    {
                        "size": text,
                        "scale": scale,
                        "dense": dense,
                        "peak_mib": taken >> 20,
                        "footprint_mib": told >> 20,
                        "share": round(taken / told, 3),
                    }
                )
                print(rows[-1], flush=True)
    save(f"memory_{options.model.replace(':', '_')}", {"model": options.model, "rows": rows})


if __name__ == "__main__":
    main()
