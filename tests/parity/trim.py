"""Cut the full fixture files down to what is committed here, or pack the key lists.

    python tests/parity/trim.py FIXTURES SPEC

FIXTURES is the folder with the files made by the original code, SPEC the one with its key lists.
"""

import gzip
import json
import re
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).parent
KEPT = {
    # file: pattern of the tensors that stay
    "dit_3b_tiny_b": r"w\..*|case1\..*|case0\.(?!trace).*",
    "vae_tiny_weights": r".*",
    "vae_tiny_io": r"T1\..*|T9\..*",
    "pipeline_7b_tiny": r".*",
    "windows": r".*",
    "rotary": r".*\.freqs|2x3x5_L4\..*|shift\..*",
    "diffusion": r".*",
    "colorfix": r"b\..*",
    "preprocess": r".*",
}
ONE_CHANNEL = ("preprocess",)  # pictures t c h w: the first frame and channel suffice
KEYS = ("3b", "7b", "vae")


def main(fixtures: Path, spec: Path) -> None:
    out = HERE / "seedvr2"
    out.mkdir(exist_ok=True)
    for name, pattern in KEPT.items():
        with safe_open(fixtures / f"{name}.safetensors", "pt") as file:
            kept = {k: file.get_tensor(k) for k in file.keys() if re.fullmatch(pattern, k)}  # noqa: SIM118
            if name in ONE_CHANNEL:
                kept = {k: x[:1, :1].contiguous() if x.ndim == 4 else x for k, x in kept.items()}
            save_file(kept, out / f"{name}.safetensors", file.metadata())
    for name in KEYS:
        keys = json.loads((spec / f"seedvr2_{name}_keys.json").read_text())
        packed = gzip.compress(json.dumps(keys, separators=(",", ":")).encode(), mtime=0)
        (out / f"{name}_keys.json.gz").write_bytes(packed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
