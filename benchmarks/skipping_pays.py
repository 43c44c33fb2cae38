"""Does skipping save time? Denoising with nano, 17 frames to 640x352, dense against half the tokens
kept.

    python benchmarks/skipping_pays.py [--kept 0.5] [--repeats 5]

Both are timed in turn within one run; the ratio of the medians is the result.
"""

import argparse
import statistics
import time

import torch
from record import save

from skipsr.backbones.seedvr2.sampler import denoise
from skipsr.loading import load_upscaler
from skipsr.settings import RuntimeSettings
from skipsr.skipping.route import Route
from skipsr.train.masks import smooth_mask

GRID = (5, 22, 40)  # tokens of 17 frames of 352x640


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kept", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args()

    upscaler = load_upscaler("nano", runtime=RuntimeSettings(dtype=options.dtype))
    model = upscaler.model
    device = torch.device(upscaler.device)
    generator = torch.Generator().manual_seed(0)
    t, h, w = GRID
    latent = torch.randn(t, 2 * h, 2 * w, 16, generator=generator).to(device)
    noise = torch.randn(latent.shape, generator=generator).to(device)
    routes = {
        "dense": Route.dense(GRID, device),
        "sparse": Route(smooth_mask(GRID, options.kept, generator).to(device)),
    }

    def once(route: Route) -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            denoise(model.dit, noise, latent, model.conditioning, route, upscaler.sampling)
            if device.type == "cuda":
                torch.cuda.synchronize()
        return time.perf_counter() - began

    for route in routes.values():
        once(route)  # warm-up
    times = {name: list[float]() for name in routes}
    for _ in range(options.repeats):
        for name, route in routes.items():
            times[name].append(once(route))
    dense, sparse = (statistics.median(times[name]) for name in ("dense", "sparse"))
    kept = routes["sparse"].fraction
    print(f"dense {dense:.3f} s, {kept:.0%} kept {sparse:.3f} s, ratio {sparse / dense:.3f}")
    save(
        "skipping_pays",
        {
            "grid": GRID,
            "dtype": upscaler.dtype,
            "kept": round(kept, 4),
            "dense_s": round(dense, 4),
            "sparse_s": round(sparse, 4),
            "ratio": round(sparse / dense, 4),
        },
    )


if __name__ == "__main__":
    main()
