"""Cut the full fixture files of BasicVSR down to what is committed here, and pack the key lists.

    python tests/parity/basicvsr/trim.py FIXTURES SPEC

FIXTURES is the folder with the files made by the original code, SPEC the one with its key lists. Of
SPyNet's weights one level stays; what the other levels gave is in `spynet_cases`.
"""

import gzip
import json
import re
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).parent
LEVEL = 3
KEPT = {
    # file: pattern of the tensors that stay
    "basicvsr_tiny_weights": r".*",
    "basicvsr_tiny_trace": r"x|y\.t0|flows_.*|backward\.t0\.h3|forward\.t2\.h[03]",
    "basicvsr_tiny_case2": r"x|y",
    "spynet_weights": rf"basic_module\.{LEVEL}\..*",
    "spynet_cases": r"case0\..*",
    "flow_warp": r".*",
    "upsampler": r"resize_flow.*",
}
KEYS = ("basicvsr", "spynet")


def main(fixtures: Path, spec: Path) -> None:
    for name, pattern in KEPT.items():
        with safe_open(fixtures / f"{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in list(file.keys())}
            config = json.loads((file.metadata() or {})["config"])
        if name.endswith("_trace"):  # single frames of the result can be kept
            tensors |= {f"y.t{t}": y.contiguous() for t, y in enumerate(tensors["y"].unbind(1))}
        kept = {key: value for key, value in tensors.items() if re.fullmatch(pattern, key)}
        if "cases" in config:
            config["cases"] = [c for c in config["cases"] if _has_case(str(c["case"]), kept)]
        if name == "spynet_weights":
            config["levels"] = [LEVEL]
        target = HERE / f"{name}.safetensors"
        save_file(kept, target, {"config": json.dumps(config)})
        target.chmod(0o644)
    for name in KEYS:
        keys = json.loads((spec / f"{name}_keys.json").read_text())
        packed = gzip.compress(json.dumps(keys, separators=(",", ":")).encode(), mtime=0)
        (HERE / f"{name}_keys.json.gz").write_bytes(packed)


def _has_case(case: str, kept: dict[str, object]) -> bool:
    return any(key.split(".")[0] in (case, f"case{case}") for key in kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
