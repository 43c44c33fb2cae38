"""Compare the package with numbers from the original implementation.

    python tests/parity/check.py DIR

DIR holds safetensors files laid out like the SeedVR2 fixtures: `dit_3b_*`, `dit_7b_*`,
`vae_*weights` with its `vae_*io`, `pipeline_*`, `windows*`, `rotary*`, `diffusion*`, `colorfix*`,
`preprocess*`; network configurations are read from the files' metadata. One line a file: name,
worst absolute error, tolerance, ok or FAIL. Exits 1 if any file fails. A folder of metric fixtures
goes to check_metrics.py, one of BasicVSR's to check_basicvsr.py.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from report import Compared, Verdict, judge, tell
from safetensors import safe_open
from torch import Tensor

from skipsr.backbones.seedvr2.config import DiTConfig, Sampling, VAEConfig
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.sampler import Conditioning, denoise
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.backbones.seedvr2.windows import geometry_of, windows
from skipsr.limits import Limits
from skipsr.nn import diffusion
from skipsr.nn.causal import Stream
from skipsr.nn.color_fix import low_frequencies, transfer_low_frequencies
from skipsr.nn.packing import Geometry
from skipsr.nn.resize import resize_bicubic
from skipsr.nn.rope import language_frequencies, pixel_frequencies, rotate
from skipsr.skipping.route import Route, from_cells, to_cells

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Fixture:
    path: Path
    tensors: Tensors
    metadata: Mapping[str, str]

    @staticmethod
    def read(path: Path) -> "Fixture":
        with safe_open(path, "pt") as file:
            return Fixture(
                path,
                {key: file.get_tensor(key) for key in list(file.keys())},
                file.metadata() or {},
            )

    def json(self, key: str) -> Any:
        return json.loads(self.metadata[key])

    def weights(self) -> dict[str, Tensor]:
        return {key[2:]: value for key, value in self.tensors.items() if key.startswith("w.")}


def error(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; infinite when the shapes differ or something is not finite."""
    if ours.shape != theirs.shape or not ours.isfinite().all():
        return float("inf")
    return (ours.double() - theirs.double()).abs().max().item() if ours.numel() else 0.0


def dit_config(family: str, config: Mapping[str, Any]) -> DiTConfig:
    """Our configuration for one of the original's; refuses what the network does not have."""
    windows, methods = config["window"], config["window_method"]
    regular, shifted = "720pwin_by_size_bysize", "720pswin_by_size_bysize"
    alternating = [(regular, shifted)[layer % 2] for layer in range(config["num_layers"])]
    if any(w != windows[0] for w in windows) or list(methods) != alternating:
        raise ValueError(
            "windows that do not alternate between regular and shifted ones of one size"
        )
    if config["emb_dim"] != 6 * config["vid_dim"] or config["txt_dim"] != config["vid_dim"]:
        raise ValueError("text or modulation of another width than video")
    three = family == "3b"
    return DiTConfig(
        width=config["vid_dim"],
        heads=config["heads"],
        head_dim=config["head_dim"],
        layers=config["num_layers"],
        separate_layers=config["mm_layers"] if three else config["num_layers"],
        mlp="swiglu" if config["mlp_type"] == "swiglu" else "gelu",
        mlp_ratio=config["expand_ratio"],
        rotary="language" if three else "pixel",
        output_norm=config.get("vid_out_norm") is not None,
        text_in_last_layer=not three,
        qk_bias=config["qk_bias"],
        text_width=config["txt_in_dim"],
        in_channels=config["vid_in_channels"],
        out_channels=config["vid_out_channels"],
        windows=tuple(windows[0]),
        eps=float(config["norm_eps"]),
    )


def load_dit(fixture: Fixture) -> DiT:
    family = fixture.metadata.get("family") or fixture.path.name.split("_")[1]
    dit = DiT(dit_config(family, fixture.json("config")))
    dit.load_state_dict(fixture.weights(), strict=True)
    return dit.eval()


def check_dit(fixture: Fixture) -> Iterator[float]:
    dit = load_dit(fixture)
    cases = {key.split(".")[0] for key in fixture.tensors if re.match(r"case\d+\.", key)}
    for case in sorted(cases):
        get = {
            key[len(case) + 1 :]: v
            for key, v in fixture.tensors.items()
            if key.startswith(f"{case}.")
        }
        t, h, w = get["vid_shape"][0].tolist()
        latent = get["vid"].reshape(t, h, w, -1)
        route = Route.dense((t, h // 2, w // 2))
        trace: dict[str, Tensor] = {}
        hooks = [hook for key, hook in trace_hooks(dit, trace) if any(key in k for k in get)]
        cells = route.pack(to_cells(latent))
        out = dit(cells, get["txt"], get["timestep"][0], dit.geometry(route, len(get["txt"])))
        for hook in hooks:
            hook.remove()
        yield error(
            from_cells(route.scatter(out, torch.zeros(*route.grid, *out.shape[1:]))).reshape(
                -1, out.shape[-1]
            ),
            get["out"],
        )
        last = f"block{len(dit.blocks) - 1}.txt"
        last_attn = f"block{len(dit.blocks) - 1}_attn.txt"
        for key, theirs in get.items():
            name = key.removeprefix("trace.")
            if not key.startswith("trace.") or (
                name in (last, last_attn) and not dit.config.text_in_last_layer
            ):
                continue  # the original keeps a don't-care value there
            yield error(trace[name], theirs)


def trace_hooks(dit: DiT, trace: dict[str, Tensor]) -> Iterator[tuple[str, Any]]:
    def keep(*names: str) -> Callable[..., None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            outputs = output if isinstance(output, tuple) else (output,)
            trace.update(zip(names, outputs, strict=True))

        return hook

    yield "vid_in", dit.vid_in.register_forward_hook(keep("vid_in.vid"))
    yield "txt_in", dit.txt_in.register_forward_hook(keep("txt_in"))

    def keep_embedding(_module: Any, _args: Any, output: Tensor) -> None:
        trace["emb_in"] = output[None]

    yield "emb_in", dit.emb_in.register_forward_hook(keep_embedding)
    for i, block in enumerate(dit.blocks):
        yield f"block{i}.", block.register_forward_hook(keep(f"block{i}.vid", f"block{i}.txt"))
        attn = block.attn.register_forward_hook(keep(f"block{i}_attn.vid", f"block{i}_attn.txt"))
        yield f"block{i}_attn", attn


def load_vae(path: Path) -> VideoAutoencoder:
    fixture = Fixture.read(path)
    config = fixture.json("config")
    vae = VideoAutoencoder(
        VAEConfig(
            channels=tuple(config["block_out_channels"]),
            encoder_blocks=config["layers_per_block"],
            decoder_blocks=config["layers_per_block"] + 1,
            groups=config["norm_num_groups"],
            latent_channels=config["latent_channels"],
            temporal_levels=config["temporal_scale_num"],
        )
    )
    vae.load_state_dict(dict(fixture.tensors), strict=True)
    return vae.eval()


def check_vae(fixture: Fixture) -> Iterator[float]:
    """Called on the io file; a weights file is covered by its io file."""
    name = fixture.metadata.get("weights") or fixture.path.name.replace("_io", "_weights")
    vae = load_vae(fixture.path.with_name(name))
    everything = 1 << 20  # one slice
    for key, video in fixture.tensors.items():
        if not (match := re.fullmatch(r"(T\d+)\.video", key)):
            continue
        get = {
            k.split(".", 1)[1]: v
            for k, v in fixture.tensors.items()
            if k.startswith(f"{match[1]}.")
        }
        for slices, suffix in ((everything, ""), (4, "_sliced4"), (8, "_sliced8")):
            posterior = vae.encode(video, slices)
            if suffix == "":
                yield error(posterior.log_variance, get["logvar"])
            if f"mean{suffix}" in get:
                yield error(posterior.mean, get[f"mean{suffix}"])
            if f"decoded{suffix}" in get:
                decoded = vae.decode(get["mean"], slice_frames=slices)
                theirs = get[f"decoded{suffix}"]
                yield error(decoded, theirs[:, :, None] if theirs.ndim == 4 else theirs)
    if "trace.video" in fixture.tensors:
        yield from check_vae_trace(vae, fixture.tensors)


def check_vae_trace(vae: VideoAutoencoder, tensors: Tensors) -> Iterator[float]:
    """Layer by layer, along the same modules that `encode` and `decode` run."""
    stream, trace = Stream(), dict[str, Tensor]()

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _args, output: trace.__setitem__(f"trace.{name}", output.clone())

    for part, short, blocks in (
        (vae.encoder, "enc", vae.encoder.down_blocks),
        (vae.decoder, "dec", vae.decoder.up_blocks),
    ):
        part.conv_in.register_forward_hook(keep(f"{short}.conv_in"))
        part.mid_block.register_forward_hook(keep(f"{short}.mid"))
        for i, block in enumerate(blocks):
            direction, sampler = ("down", "ds") if short == "enc" else ("up", "us")
            block.register_forward_hook(keep(f"{short}.{direction}{i}"))
            block.resnets[-1].register_forward_hook(keep(f"{short}.{direction}{i}_pre_{sampler}"))
    vae.encoder.mid_block.attentions[0].register_forward_hook(keep("enc.mid_attn"))
    mean = vae.encoder(tensors["trace.video"], stream).chunk(2, 1)[0]
    trace["trace.mean"] = mean
    trace["trace.decoded"] = vae.decoder(tensors["trace.mean"], None, Stream())
    trace["trace.enc.mid_attn"] = rearrange(trace["trace.enc.mid_attn"], "b c t h w -> (b t) c h w")
    for key, theirs in tensors.items():
        if key.startswith("trace.") and key != "trace.video":
            yield error(trace[key], theirs)


def check_windows(fixture: Fixture) -> Iterator[float]:
    for key, theirs in fixture.tensors.items():
        kind, _, grid = key.partition(".")
        named = re.fullmatch(r"(reg|shift)(?:_w(\d+)_(\d+)_(\d+))?", kind)
        assert named, f"unknown window kind {kind}"
        counts = tuple(int(n) for n in named.groups()[1:]) if named[2] else (4, 3, 3)
        t, h, w = (int(n) for n in grid.split("_"))
        ours = windows((t, h, w), counts, shifted=named[1] == "shift")  # type: ignore[arg-type]
        rows = [[*ts, *hs, *ws] for ts, hs, ws in ours]
        yield error(torch.tensor(rows, dtype=torch.int32), theirs)


def one_window(grid: tuple[int, int, int], text: int, rotary: Any, frequencies: Tensor) -> Geometry:
    return geometry_of(Route.dense(grid), text, (1, 1, 1), rotary, frequencies)


def angles(rotation: Any, doubled: Tensor) -> float:
    """Compare cosines and sines, which are what is applied; the stored angles come in pairs."""
    half = doubled[:, ::2]
    return max(error(rotation.cos[:, 0], half.cos()), error(rotation.sin[:, 0], half.sin()))


def check_rotary(fixture: Fixture) -> Iterator[tuple[float, float]]:
    """(error, tolerance) pairs: angles of the pixel kind reach 402 rad."""
    get = fixture.tensors
    yield error(language_frequencies(42), get["3b.freqs"]), 1e-6
    yield error(pixel_frequencies(21), get["7b.freqs"]), 1e-3
    for key in {key.split(".")[0] for key in get if re.match(r"\d+x\d+x\d+_L\d+\.", key)}:
        t, h, w, text = (int(n) for n in re.findall(r"\d+", key))
        for name, rotary, tolerance in (("3b", "language", 1e-5), ("7b", "pixel", 2e-4)):
            geometry = one_window((t, h, w), text, rotary, get[f"{name}.freqs"])
            rotation = geometry.layouts[0].rotation
            yield angles(rotation, get[f"{key}.{name}.vid_angles"]), tolerance
            for part in "qk":
                yield (
                    error(rotate(get[f"{key}.{part}"], rotation), get[f"{key}.{name}.{part}_rot"]),
                    tolerance,
                )
            if geometry.text_rotation is not None:
                yield angles(geometry.text_rotation, get[f"{key}.{name}.txt_angles"]), tolerance
                for part in "qk":
                    ours = rotate(get[f"{key}.txt_{part}"], geometry.text_rotation)
                    yield error(ours, get[f"{key}.{name}.txt_{part}_rot"]), tolerance
    for key, theirs in get.items():
        if match := re.fullmatch(
            r"(reg|shift)\.(\d+)_(\d+)_(\d+)\.(permutation|window_shapes)", key
        ):
            grid = (int(match[2]), int(match[3]), int(match[4]))
            shifted = match[1] == "shift"
            if match[5] == "permutation":
                geometry = geometry_of(Route.dense(grid), 0, (4, 3, 3), "language", get["3b.freqs"])
                ours = geometry.layouts[int(shifted)].order.to(torch.int32)
            else:
                ours = torch.tensor(
                    [[b - a for a, b in w] for w in windows(grid, (4, 3, 3), shifted=shifted)],
                    dtype=torch.int32,
                )
            yield error(ours, theirs), 0.0


def check_diffusion(fixture: Fixture) -> Iterator[tuple[float, float]]:
    get, near = fixture.tensors, 1e-5
    for key, theirs in get.items():
        if match := re.fullmatch(r"timesteps\.steps(\d+)", key):
            yield error(diffusion.timesteps(int(match[1])), theirs), 1e-3
        if match := re.fullmatch(r"cfg\.scale([\d.]+)_rescale([\d.]+)", key):
            ours = diffusion.guide(get["cfg.pos"], get["cfg.neg"], float(match[1]), float(match[2]))
            yield error(ours, theirs), near
        if match := re.fullmatch(r"loop\.out_steps(\d+)", key):
            ours = diffusion.sample(
                lambda x, t: (x @ get["loop.W"]).tanh() * (0.5 + t / 1000),
                get["loop.x0"],
                int(match[1]),
            )
            yield error(ours, theirs), near
        if match := re.fullmatch(r"euler\.endpoint_from_t(\d+)", key):
            ours = diffusion.step(get["euler.x_t"], get["euler.pred"], float(match[1]), 0.0)
            yield error(ours, theirs), near
    for name, shapes in (("shift", "shift.latent_thw"), ("quirk", "quirk.shape_passed")):
        for grid, row in zip(get[shapes].tolist(), get[f"{name}.t_out"], strict=True):
            yield error(diffusion.shift_timestep(get[f"{name}.t_in"], tuple(grid)), row), 1e-3
    ours = diffusion.step(get["euler.x_t"], get["euler.pred"], get["euler.t"], get["euler.s"])
    yield error(ours, get["euler.x_s"]), near
    ours = diffusion.add_noise(
        get["euler.forward_x0"], get["euler.forward_xT"], get["euler.forward_t"]
    )
    yield error(ours, get["euler.forward_out"]), near
    condition = diffusion.condition(get["cond.latent_blur"])
    yield error(condition, get["cond.condition"]), near
    yield error(torch.cat((get["cond.noise"], condition), -1), get["cond.model_input"]), near


def check_pipeline(fixture: Fixture) -> Iterator[float]:
    dit, get = load_dit(fixture), fixture.tensors
    t, h, w, _ = get["lr_latent"].shape
    route = Route.dense((t, h // 2, w // 2))
    for name, run in fixture.json("runs").items():
        # the original's level, which it computes from a wrong shape
        level = get[f"{name}.cond_noise_t"]
        base = diffusion.add_noise(get["lr_latent"], get["aug_noise"], level)
        yield error(base, get[f"{name}.cond_latent"])
        sampling = Sampling(steps=run["steps"], guidance=run["cfg"], rescale=run["rescale"])
        text = Conditioning(get["txt_pos"], get["txt_neg"])
        yield error(denoise(dit, get["noise"], base, text, route, sampling), get[f"{name}.out"])


def check_colorfix(fixture: Fixture) -> Iterator[float]:
    get = fixture.tensors
    for name, key in (("a", "out_unclamped"), ("b", "out_unlimited_unclamped")):
        if f"{name}.{key}" in get:
            yield error(
                transfer_low_frequencies(get[f"{name}.content"], get[f"{name}.style"]),
                get[f"{name}.{key}"],
            )
    if "a.content_low" in get:
        yield error(low_frequencies(get["a.content"]), get["a.content_low"])


def check_preprocess(fixture: Fixture) -> Iterator[tuple[float, float]]:
    get = fixture.tensors
    for parts, count, padded in get["frames"].tolist():
        yield abs(Limits(step=4 * parts).pad_frames(count) - padded), 0.0
    for name in ("resize", "down"):
        resized = get[f"{name}.resized"]
        yield (
            error(
                resize_bicubic(get[f"{name}.in"], (resized.shape[2], resized.shape[3])),
                resized.clamp(0, 1),
            ),
            1e-6,
        )


CHECKS: tuple[tuple[str, float, Callable[[Fixture], Iterator[Any]]], ...] = (
    # pattern, tolerance (checks that yield pairs bring their own), check
    (r"dit_(3b|7b)_.*", 2e-5, check_dit),
    (r"vae_.*io", 2e-5, check_vae),
    (r"pipeline_.*", 1e-4, check_pipeline),
    (r"windows.*", 0.0, check_windows),
    (r"rotary.*", 2e-4, check_rotary),
    (r"diffusion.*", 1e-3, check_diffusion),
    (r"colorfix.*", 1e-6, check_colorfix),
    (r"preprocess.*", 1e-6, check_preprocess),
)


def run(path: Path) -> Verdict:
    """Worst error, tolerance, verdict, remark."""
    tolerance, check = next((t, c) for pattern, t, c in CHECKS if re.fullmatch(pattern, path.stem))

    def compare() -> Compared:
        with torch.inference_mode():
            results = list(check(Fixture.read(path)))
        return [r if isinstance(r, tuple) else (r, tolerance) for r in results]

    return judge(tolerance, compare)


def main(folder: Path) -> int:
    if (folder / "images.safetensors").exists() or (folder / "imresize.safetensors").exists():
        from check_metrics import main as check_metrics  # a file beside this one

        return check_metrics(folder)
    if any(any(folder.glob(start)) for start in ("basicvsr_*", "spynet_*", "flow_warp*")):
        from check_basicvsr import main as check_basicvsr  # a file beside this one

        return check_basicvsr(folder)
    files = sorted(folder.glob("*.safetensors"))
    known = [f for f in files if any(re.fullmatch(p, f.stem) for p, _, _ in CHECKS)]
    unknown = [
        f.name for f in files if f not in known and not re.fullmatch(r"vae_.*weights", f.stem)
    ]
    failures = tell(known, run)
    for name in unknown:
        print(f"{name}: not one of ours, left out")
    if not known:
        print(f"{folder}: no fixture files")
    return 1 if failures or not known else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
