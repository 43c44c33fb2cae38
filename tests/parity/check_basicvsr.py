"""Compare BasicVSR, SPyNet and the warp with numbers from the original implementation.

    python tests/parity/check_basicvsr.py DIR

DIR holds safetensors files laid out like the BasicVSR fixtures: `spynet_weights` and
`spynet_cases`, `basicvsr_*_weights` with its `_case*`, `_trace` and `_grad`, `flow_warp`,
`upsampler`. Weights of SPyNet may be cut to some levels (`levels` in the metadata); then flows come
from the case's file, and the way from level to level is checked with what the original's levels
gave. Output and exit status are those of check.py, which calls this for such a folder; a line names
what was not compared.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from report import Compared, Verdict, judge, tell
from safetensors import safe_open
from torch import Tensor, nn

from skipsr.backbones.basicvsr.config import BasicVSRConfig, FlowConfig
from skipsr.backbones.basicvsr.flow import SPyNet
from skipsr.backbones.basicvsr.network import BasicVSR, Direction
from skipsr.backbones.basicvsr.weights import normalise
from skipsr.nn.warp import warp
from skipsr.train.pixels import charbonnier

SPYNET = "spynet_weights.safetensors"
FLOW, OUTPUT, FEATURE, RELATIVE, COPY = 5e-5, 2e-5, 1e-5, 1e-3, 0.0
SHUFFLES = {"upsample_x2": {0: 2}, "upsample_x3": {0: 3}, "upsample_x4": {0: 2, 2: 2}}
Pairs = Iterator[tuple[float, float]]


class Fixture(Mapping[str, Tensor]):
    """The tensors of a file; it remembers which were asked for."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            self._tensors = {key: file.get_tensor(key) for key in list(file.keys())}
            self.config: dict[str, Any] = json.loads((file.metadata() or {})["config"])
        self.path, self.unread = path, set(self._tensors)

    def __getitem__(self, key: str) -> Tensor:
        self.unread.discard(key)
        return self._tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def beside(self, name: str) -> "Fixture":
        return Fixture(self.path.with_name(name))

    def weights(self) -> "Fixture":
        stem = self.path.stem.rsplit("_", 1)[0]
        return self.beside(self.config.get("weights", f"{stem}_weights.safetensors"))

    def spynet(self) -> "Fixture":
        return self.beside(self.config.get("spynet", SPYNET))


def error(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference; infinite when the shapes differ or something is not finite."""
    if ours.shape != theirs.shape or not ours.isfinite().all():
        return float("inf")
    return (ours.double() - theirs.double()).abs().max().item()


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value."""
    return error(ours, theirs) / theirs.abs().max().item()


def levels_of(weights: Fixture) -> list[int]:
    """The levels whose weights a file of SPyNet holds; all, unless it says that it was cut."""
    return list(weights.config.get("levels", range(FlowConfig().levels)))


def load_spynet(weights: Fixture) -> SPyNet:
    """SPyNet with the levels of a file, and nothing missing or left over."""
    spynet, levels = SPyNet(FlowConfig()), levels_of(weights)
    for level in levels:
        prefix = f"basic_module.{level}."
        held = {k.removeprefix(prefix): weights[k] for k in weights if k.startswith(prefix)}
        spynet.basic_module[level].load_state_dict(held, strict=True)
    if weights.unread:
        raise ValueError(f"unexpected weights: {', '.join(sorted(weights.unread))}")
    return spynet.eval()


def load_network(weights: Fixture, flow: Fixture) -> BasicVSR:
    """A network of the file's size, its SPyNet from another one; without routers."""
    sizes = {key: weights.config[key] for key in ("num_feat", "num_block")}
    model = BasicVSR(BasicVSRConfig(**sizes))
    model.router_backward = model.router_forward = None
    spynet = {f"spynet.{k}": v for k, v in load_spynet(flow).state_dict().items()}
    tensors = {**normalise(weights), **spynet, "calibration": model.calibration}
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def check_weights(get: Fixture) -> Pairs:
    """Every tensor is one of ours, in name and shape, and comes back out."""
    if get.path.name.startswith("spynet"):
        state = load_spynet(get).state_dict()
    else:
        state = load_network(get, get.spynet()).state_dict()
    for key in get:
        yield error(state[key], get[key]), COPY


def check_flow_warp(get: Fixture) -> Pairs:
    """Ours has `align_corners=True` only."""
    for case in get.config["cases"]:
        if case["align_corners"]:
            name = case["case"]
            ours = warp(
                get[f"{name}.x"], get[f"{name}.flow"], case["interp_mode"], case["padding_mode"]
            )
            yield error(ours, get[f"{name}.y"]), 1e-5


class Replay(nn.Module):
    """Stands for a level: gives what the original's level gave, and keeps what ours was given."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output, self.seen = output, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.output


def check_spynet(get: Fixture) -> Pairs:
    weights = get.weights()
    spynet, levels = load_spynet(weights), levels_of(weights)
    whole = len(levels) == FlowConfig().levels
    for case in get.config["cases"]:
        name = f"case{case['case']}"
        ref, supp, flow = get[f"{name}.ref"], get[f"{name}.supp"], get[f"{name}.flow"]
        if whole:
            yield error(spynet(ref, supp), flow), FLOW
        if case["traced"]:
            inputs, outputs = (
                [get[f"{name}.level{i}.{end}"] for i in range(FlowConfig().levels)]
                for end in ("in", "out")
            )
            for i in levels:
                yield error(spynet.basic_module[i](inputs[i]), outputs[i]), FLOW
            replays = [Replay(output) for output in outputs]
            path = SPyNet(FlowConfig())
            path.basic_module = nn.ModuleList(replays)
            yield error(path(ref, supp), flow), FLOW
            for replay, theirs in zip(replays, inputs, strict=True):
                yield error(replay.seen[0], theirs), FLOW


class Tap:
    """What a network computes on its way, by the fixtures' names."""

    def __init__(self, model: BasicVSR, frames: Tensor) -> None:
        self.model, self.frames = model, frames
        self.seen: dict[str, Tensor] = {}

    def run(self) -> dict[str, Tensor]:
        model = self.model
        hooks = [*self._watch_trunk("backward"), *self._watch_trunk("forward")]
        for name, layer in (("fusion", model.fusion), ("upconv1", model.upconv1)):
            hooks.append(layer.register_forward_hook(partial(self._keep_layer, name)))
        back, ahead = "flows_backward", "flows_forward"
        self.seen |= dict(zip((back, ahead), model.flows(self.frames), strict=True))
        self.seen["y"] = model(self.frames)
        self.seen |= {f"y.t{t}": y for t, y in enumerate(self.seen["y"].unbind(1))}
        for hook in hooks:
            hook.remove()
        for way in ("backward", "forward"):
            states = [self.seen[f"{way}.t{t}.h{len(self._blocks(way))}"] for t in range(self.count)]
            self.seen[f"feat_{way}"] = torch.stack(states, 1)
        return self.seen

    @property
    def count(self) -> int:
        return self.frames.shape[1]

    def _blocks(self, way: Direction) -> list[nn.Module]:
        return list(self.model.trunk(way).blocks)

    def _watch_trunk(self, way: Direction) -> Iterator[Any]:
        main = self.model.trunk(way).main
        yield main[0].register_forward_hook(lambda _m, x, _y: self._keep(way, "trunk_in", x[0]))
        for depth, module in enumerate((main[1], *self._blocks(way))):
            name = f"h{depth}"
            yield module.register_forward_hook(lambda _m, _x, y, n=name: self._keep(way, n, y))

    def _keep(self, way: Direction, name: str, value: Tensor) -> None:
        order = range(self.count) if way == "forward" else reversed(range(self.count))
        key = next(k for t in order if (k := f"{way}.t{t}.{name}") not in self.seen)
        self.seen[key] = value.clone()

    def _keep_layer(self, name: str, _module: nn.Module, _x: Any, y: Tensor) -> None:
        key = next(k for t in range(self.count) if (k := f"t{t}.{name}_out") not in self.seen)
        self.seen[key] = y.clone()


def give_flows(model: BasicVSR, get: Fixture) -> None:
    """Let a network without a whole SPyNet use the flows of a file."""
    flows = get["flows_backward"], get["flows_forward"]
    model.flows = lambda frames: flows  # type: ignore[method-assign]


def check_clip(tolerance: float, get: Fixture) -> Pairs:
    """A clip through the network: flows, features and result, whichever the file holds."""
    flow = get.spynet()
    model = load_network(get.weights(), flow)
    if len(levels_of(flow)) < FlowConfig().levels and get["x"].shape[1] > 1:
        give_flows(model, get)
    ours = Tap(model, get["x"]).run()
    for key in get:
        if key != "x":
            yield error(ours[key], get[key]), FLOW if key.startswith("flows") else tolerance


def check_gradients(get: Fixture) -> Pairs:
    """Loss, three gradients and the norms of all, each against the largest value."""
    with torch.inference_mode(False):
        model = load_network(get.weights(), get.spynet())
        loss = charbonnier(model(get["x"]), get["gt"])
        loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    yield relative(loss.detach()[None], get["loss"]), RELATIVE
    for key in get:
        if key.startswith("grad."):
            yield relative(gradients[key.removeprefix("grad.")], get[key]), RELATIVE
    norms = get.config["grad_norms"]
    if norms.keys() != gradients.keys():
        raise ValueError(f"gradients of others: {sorted(norms.keys() ^ gradients.keys())}")
    for name, norm in norms.items():
        yield relative(gradients[name].norm()[None], torch.tensor([norm])), RELATIVE


class GivenFlow(SPyNet):
    """SPyNet that ends with a given flow: only its last resizing is its own."""

    def __init__(self, flow: Tensor) -> None:
        super().__init__(FlowConfig())
        self.flow = flow

    def _refine(self, refs: list[Tensor], supps: list[Tensor]) -> Tensor:
        return self.flow


def check_upsampler(get: Fixture) -> Pairs:
    """Reconstruction and the flow's resizing are ours. The package has no generic upsampler: there
    the torch functions that reconstruction is made of are compared."""
    for case in get.config["cases"]:
        name = case["case"]
        if name == "recon":
            yield from check_reconstruction(get, case["weights"])
        elif name in SHUFFLES:
            x = get[f"{name}.x"]
            for layer, factor in SHUFFLES[name].items():
                weight, bias = (get[f"{name}.weights.{layer}.{k}"] for k in ("weight", "bias"))
                x = F.pixel_shuffle(F.conv2d(x, weight, bias, padding=1), factor)
            yield error(x, get[f"{name}.y"]), FEATURE
        elif name.startswith("resize_flow"):
            resized = get[f"{name}.y"]
            picture = torch.zeros(1, 3, *resized.shape[2:])
            yield error(GivenFlow(get[f"{name}.x"])(picture, picture), resized), FEATURE


def check_reconstruction(get: Fixture, weights: str) -> Pairs:
    model, seen = load_network(get.beside(weights), get.spynet()), dict[str, Tensor]()
    names = ("fusion", "upconv1", "conv_last")
    for name in names:
        layer = getattr(model, name)
        layer.register_forward_hook(lambda _m, _x, y, n=name: seen.__setitem__(n, y.clone()))
    later, earlier = get["recon.feat_backward"], get["recon.feat_forward"]
    yield error(model.reconstruct(get["recon.lr"], later, earlier), get["recon.y"]), FEATURE
    for name in names:
        yield error(seen[name], get[f"recon.{name}_out"]), FEATURE


CHECKS: tuple[tuple[str, float, Callable[[Fixture], Pairs]], ...] = (
    # pattern, widest tolerance, check
    (r"(spynet|basicvsr_.*)_weights", COPY, check_weights),
    (r"spynet_cases", FLOW, check_spynet),
    (r"flow_warp", 1e-5, check_flow_warp),
    (r"basicvsr_.*_case\d+", FLOW, partial(check_clip, OUTPUT)),
    (r"basicvsr_.*_trace", FLOW, partial(check_clip, FEATURE)),
    (r"basicvsr_.*_grad", RELATIVE, check_gradients),
    (r"upsampler", FEATURE, check_upsampler),
)


def known(path: Path) -> bool:
    return any(re.fullmatch(pattern, path.stem) for pattern, _, _ in CHECKS)


def run(path: Path) -> Verdict:
    """Worst error, widest tolerance, verdict, and a remark that names what was not compared."""
    tolerance, check = next((t, c) for pattern, t, c in CHECKS if re.fullmatch(pattern, path.stem))
    unread: set[str] = set()

    def compare() -> Compared:
        get = Fixture(path)
        with torch.inference_mode():
            pairs = list(check(get))
        unread.update(get.unread)
        return pairs

    worst, widest, good, remark = judge(tolerance, compare)
    groups = sorted({key.split(".")[0] for key in unread})
    return worst, widest, good, remark + (f"; not compared: {', '.join(groups)}" if groups else "")


def main(folder: Path) -> int:
    files = sorted(folder.glob("*.safetensors"))
    ours = [path for path in files if known(path)]
    failures = tell(ours, run)
    for path in files:
        if path not in ours:
            print(f"{path.name}: not one of ours, left out")
    if not ours:
        print(f"{folder}: no fixture files of BasicVSR")
    return 1 if failures or not ours else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
