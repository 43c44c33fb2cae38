"""Quality on real clips: ÷4 bicubic antialias, ×4 again, against the original.

    python benchmarks/eval_clips.py DIR [--model nano] [--frames 25] [--only NAME] [--compare]

PSNR and SSIM, VMAF and VMAF-NEG of every clip, for plain bicubic and for the model, measured as by
`skipsr eval`; --compare adds the model with every token computed, and its autoencoder alone on the
truth. Without --only the figures go to `benchmarks/results/`.
"""

import argparse
from pathlib import Path

from record import HERE, save

from skipsr.backbones.trainable import Denoiser
from skipsr.evaluation.clips import find_clips
from skipsr.evaluation.page import quality_report
from skipsr.evaluation.quality import Methods, measure_quality
from skipsr.evaluation.record import describe_run, rounded
from skipsr.loading import load_upscaler
from skipsr.settings import EvalSettings, RuntimeSettings, SkipSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir", type=Path)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--only", default="", help="only clips with this in their name")
    parser.add_argument("--compare", action="store_true", help="also dense, and reconstruction")
    options = parser.parse_args()
    skips = {options.model: SkipSettings()}
    if options.compare:
        skips[f"{options.model}, dense"] = SkipSettings(dense=True)
    runtime = RuntimeSettings(dtype=options.dtype)
    upscalers = {name: load_upscaler(options.model, skip, runtime) for name, skip in skips.items()}
    settings = EvalSettings(
        degrade="bicubic",
        frames=options.frames,
        metrics=("fidelity", "vmaf"),
        only=options.only,
    )
    told = {"eval": {"frames": options.frames, "only": options.only}}
    record = describe_run(options.dir, list(skips), upscalers[options.model], told)
    has_autoencoder = isinstance(getattr(upscalers[options.model], "model", None), Denoiser)
    methods = Methods(upscalers=upscalers, reconstruct=options.compare and has_autoencoder)
    clips = find_clips(options.dir, settings, print)
    report = quality_report(*measure_quality(clips, methods, settings, record))
    print(report.markdown())
    if not options.only:
        name = "eval_clips_compare" if options.compare else "eval_clips"
        if options.model != "nano":
            name += "_" + options.model.replace(":", "_")
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / f"{name}.md").write_text(report.markdown())
        found = rounded(report.json())
        assert isinstance(found, dict)
        save(name, found)


if __name__ == "__main__":
    main()
