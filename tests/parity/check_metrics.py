"""Compare metrics, resizing and BD degradation with numbers of the original code.

    python tests/parity/check_metrics.py DIR

DIR holds the fixtures of metrics: `psnr_ssim.json`, `niqe.json` and `brisque.json`, each with the
file of 8-bit images (`h w 3`) that it names; `niqe_intermediate`, `niqe_pristine_params`,
`brisque_features`, `brisque_svr`, `imresize` and `bd_degradation` as safetensors. What is not there
is not checked. Output and exit status are those of check.py, which calls this for such a folder.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from report import Compared, Verdict, judge, tell
from safetensors import safe_open
from torch import Tensor

from skipsr.data.degrade import downscale_bd
from skipsr.metrics import brisque, fidelity, niqe
from skipsr.metrics.metric import levels
from skipsr.metrics.natural import parameters
from skipsr.nn.resize import imresize


def error(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; infinite when the shapes differ or something is not finite."""
    if ours.shape != theirs.shape or not ours.isfinite().all():
        return float("inf")
    return (ours.double() - theirs.double()).abs().max().item()


@cache
def read(path: Path) -> tuple[Mapping[str, Tensor], Any]:
    """The tensors of a file, and its `config` if it has one."""
    with safe_open(path, "pt") as file:
        config = json.loads((file.metadata() or {}).get("config", "null"))
        return {key: file.get_tensor(key) for key in list(file.keys())}, config


def frame(image: Tensor) -> Tensor:
    """An 8-bit image `h w 3` as a clip of one frame."""
    return rearrange(image, "h w c -> 1 c h w").float() / 255


def grey(colours: Tensor) -> Tensor:
    """`3 h w` in [0, 1] to grey in 0..255, rounded where OpenCV rounds: fused products, float32."""
    red, green, blue = colours.double()
    weights = torch.tensor([0.299, 0.587, 0.114]).double()
    total = (green * weights[1]).float()
    total = (blue * weights[2] + total).float()
    return (red * weights[0] + total).float() * 255


def rows_of(path: Path) -> Iterator[tuple[dict[str, Any], Mapping[str, Tensor]]]:
    """Rows of a table, with the clips it is about."""
    table = json.loads(path.read_text())
    images, _ = read(path.with_name(table["images"]))
    for row in table["rows"]:
        yield row, images


def check_psnr_ssim(path: Path) -> Compared:
    """The 8-bit path; SSIM of the float path is the same formula, PSNR there has another."""
    ours = {
        "psnr_rgb": fidelity.psnr_rgb,
        "psnr_y": fidelity.psnr_y,
        "ssim_rgb": fidelity.ssim_rgb,
        "ssim_y": fidelity.ssim_y,
    }
    for row, images in rows_of(path):
        clips = frame(images[row["dist"]]), frame(images[row["ref"]])
        for name, measure in ours.items():
            value = measure(*clips, border=row["crop_border"]).mean().item()
            if name.startswith("psnr"):
                theirs = min(float(row[name]), fidelity.CAP)
                yield abs(value - theirs), 1e-4
            else:
                yield abs(value - row[name]), 1e-6
                yield abs(value - row[name.replace("ssim", "ssim_pt")]), 1e-6


def check_niqe(path: Path) -> Compared:
    for row, images in rows_of(path):
        clip, border = frame(images[row["image"]]), row["crop_border"]
        yield abs(niqe.niqe(clip, border=border) - row["niqe_y"]), 0.02
        h, w = clip.shape[-2:]
        inner = clip[0, :, border : h - border, border : w - border]
        yield abs(niqe.niqe_of_plane(grey(inner)).item() - row["niqe_gray"]), 0.02


def check_niqe_intermediate(path: Path) -> Compared:
    images, _ = read(path.with_name("images.safetensors"))
    for key, theirs in read(path)[0].items():
        kind, name = key.split(".", 1)
        luma = fidelity.luma(levels(frame(images[name]))[0])
        if kind == "y_channel":
            h, w = theirs.shape
            yield error(luma[:h, :w], theirs), 1e-4
        else:
            h, w = (n // niqe.BLOCK * niqe.BLOCK for n in luma.shape)
            yield error(niqe.features(luma[:h, :w].round()), theirs), 0.02


def check_niqe_pristine(path: Path) -> Compared:
    theirs, ours = read(path)[0], parameters("niqe")
    yield error(ours["mean"][None], theirs["mu"]), 0.0
    yield error(ours["covariance"], theirs["cov"]), 0.0
    line = niqe.WINDOW
    yield error(torch.outer(line, line), theirs["gaussian_window"]), 1e-15


def check_brisque(path: Path) -> Compared:
    for row, images in rows_of(path):
        yield abs(brisque.brisque(frame(images[row["image"]])) - row["score"]), 0.1


def check_brisque_features(path: Path) -> Compared:
    images, _ = read(path.with_name("images.safetensors"))
    for key, theirs in read(path)[0].items():
        kind, name = key.split(".", 1)
        plane = brisque.grey(levels(frame(images[name]))[0])
        features = brisque.features(plane)
        if kind == "gray":
            yield error(plane[: theirs.shape[0], : theirs.shape[1]], theirs), 1e-12
        else:
            yield error(features if kind == "raw" else brisque.scale(features), theirs), 1e-3


def check_brisque_svr(path: Path) -> Compared:
    ours = parameters("brisque")
    for key, theirs in read(path)[0].items():
        yield error(ours[key], theirs), 0.0


def check_imresize(path: Path) -> Compared:
    tensors, config = read(path)
    for case in config["cases"]:
        x, y = (tensors[f"{case['case']}.{end}"] for end in "xy")
        if case["layout"] == "HWC":
            x, y = (rearrange(image, "h w c -> c h w") for image in (x, y))
        yield error(imresize(x, case["scale"]), y), 1e-5


def check_bd_degradation(path: Path) -> Compared:
    tensors, _ = read(path)
    for key, x in tensors.items():
        if match := re.fullmatch(r"bd_(duf|even)(?:_x(\d))?_\d+\.x", key):
            kernel: Any = match[1]
            small = downscale_bd(rearrange(x, "c h w -> 1 c 1 h w"), int(match[2] or 4), kernel)
            yield error(small[0, :, 0], tensors[f"{key[:-2]}.y"]), 1e-5


CHECKS: Mapping[str, tuple[float, Callable[[Path], Compared]]] = {
    # file: widest tolerance, check
    "psnr_ssim.json": (1e-4, check_psnr_ssim),
    "niqe.json": (0.02, check_niqe),
    "niqe_intermediate.safetensors": (0.02, check_niqe_intermediate),
    "niqe_pristine_params.safetensors": (1e-15, check_niqe_pristine),
    "brisque.json": (0.1, check_brisque),
    "brisque_features.safetensors": (1e-3, check_brisque_features),
    "brisque_svr.safetensors": (0.0, check_brisque_svr),
    "imresize.safetensors": (1e-5, check_imresize),
    "bd_degradation.safetensors": (1e-5, check_bd_degradation),
}


def run(path: Path) -> Verdict:
    """Worst error, widest tolerance, verdict, remark."""
    tolerance, check = CHECKS[path.name]
    return judge(tolerance, lambda: check(path))


def main(folder: Path) -> int:
    known = [folder / name for name in CHECKS if (folder / name).exists()]
    failures = tell(known, run)
    if not known:
        print(f"{folder}: no fixture files of metrics")
    return 1 if failures or not known else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
