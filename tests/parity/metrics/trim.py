"""Cut the full fixture files of metrics down to what is committed here.

    python tests/parity/metrics/trim.py FIXTURES

All versions of one picture stay: a crop of "astronaut" (NASA, public domain) from scikit-image.
"""

import json
import re
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).parent
IMAGES = r"img0\..*"
KEPT = {
    # file: pattern of the tensors that stay
    "images": IMAGES,
    "imresize": r"(down3|down4_hwc|up1_5|up2|noise_down4|noise_up4)\..",
    "bd_degradation": r"bd_(duf_x3|duf_x4|even)_2\..",
    "niqe_intermediate": rf"[a-z_]+\.({IMAGES})",
    "niqe_pristine_params": r".*",
    "brisque_features": rf"[a-z]+\.({IMAGES})",
}
TABLES = ("psnr_ssim", "niqe", "brisque")


def main(fixtures: Path) -> None:
    for name, pattern in KEPT.items():
        with safe_open(fixtures / f"{name}.safetensors", "pt") as file:
            kept = {k: file.get_tensor(k) for k in file.keys() if re.fullmatch(pattern, k)}  # noqa: SIM118
            metadata = file.metadata() or {}
        config = json.loads(metadata.get("config", "{}"))
        if isinstance(config.get("cases"), list):
            config["cases"] = [c for c in config["cases"] if f"{c['case']}.x" in kept]
            metadata = {"config": json.dumps(config)}
        target = HERE / f"{name}.safetensors"
        save_file(kept, target, metadata)
        target.chmod(0o644)
    for name in TABLES:
        table = json.loads((fixtures / f"{name}.json").read_text())
        table["rows"] = [row for row in table["rows"] if _has_images(row)]
        (HERE / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")


def _has_images(row: dict[str, object]) -> bool:
    names = [str(row[key]) for key in ("image", "ref", "dist") if key in row]
    return all(re.fullmatch(IMAGES, name) for name in names)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
