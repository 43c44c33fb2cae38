"""The family's files: what is in them, how to know them, and how to make an upscaler of them
(spec/seedvr2 section 8).

Our module names are the published ones, so strict loading needs no map. Three variations are
accepted:
the old names of the autoencoder's attention, a `model.diffusion_model.` prefix, and conditioning
tokens
packed beside the transformer.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from skipsr.backbones.seedvr2.config import PRESETS, SAME_FILES
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.model import SeedVR2, build_predictor
from skipsr.backbones.seedvr2.upscaler import SeedVR2Upscaler, TokenSkippingUpscaler
from skipsr.backbones.seedvr2.vae import VideoAutoencoder
from skipsr.errors import SettingsError, WeightsError
from skipsr.settings import SkipSettings
from skipsr.weights.identify import Kind, identify, read_inventory
from skipsr.weights.load import inventory, load_strictly, read_tensors

T = TypeVar("T")
log = logging.getLogger(__name__)

_PUBLISHED = ("3b", "7b")
_PREFIX = "model.diffusion_model."
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_PREDICTORS = {"seedvr2 mask predictor": False, "seedvr2 mask predictor for any tau": True}
_TEXT_NAMES = {58: "positive", 64: "negative"}  # tokens -> which
_PACKED_TEXT = {"positive_conditioning": "positive", "negative_conditioning": "negative"}


@cache
def kinds() -> tuple[Kind, ...]:
    """Every kind of file the family knows."""
    found: list[Kind] = []
    with torch.device("meta"):
        for preset, config in PRESETS.items():
            if preset in SAME_FILES:
                continue
            if preset in _PUBLISHED:
                found.append(Kind(f"seedvr2:{preset} transformer", inventory(DiT(config.dit))))
            else:
                found.append(Kind(f"seedvr2:{preset} (whole model)", inventory(SeedVR2(config))))
        published = PRESETS["3b"]
        found.append(Kind("seedvr2 autoencoder", inventory(VideoAutoencoder(published.vae))))
        for kind, any_tau in _PREDICTORS.items():
            predictor = build_predictor(replace(published.predictor, any_tau=any_tau))
            found.append(Kind(kind, inventory(predictor)))
    width = published.dit.text_width
    found += [
        Kind(f"seedvr2 {which} conditioning", {"": (n, width)}) for n, which in _TEXT_NAMES.items()
    ]
    return tuple(found)


def normal_name(name: str) -> str | None:
    """Our name of a tensor in a published file or repack; None for packed conditioning tokens."""
    name = name.removeprefix(_PREFIX)
    if name in _PACKED_TEXT:
        return None
    match = re.fullmatch(r"(.*\.attentions\.0\.)(query|key|value|proj_attn)(\..*)", name)
    return f"{match[1]}{_OLD_ATTENTION[match[2]]}{match[3]}" if match else name


def load(
    preset: str,
    source: Path,
    device: torch.device,
    dtype: torch.dtype,
    skip: SkipSettings,
    steps: int | None,
    guidance: float | None = None,
) -> SeedVR2Upscaler:
    """An upscaler from a whole-model file, or from a folder with the published files.

    Raises:
        SettingsError: for settings of another family, or guidance for a model that knows none.
        WeightsError: when files are missing or do not fit.
    """
    name = f"seedvr2:{preset}"
    if skip.skip == "blocks" or skip.patches:
        raise SettingsError(f"--skip blocks is not for {name}: it is for recurrent models")
    if guidance is not None and not PRESETS[preset].negative_tokens:
        raise SettingsError(f"--guidance is not for {name}: it was trained without")
    model = read_model(preset, source)
    if guidance not in (None, 1) and model.text.negative is None:
        raise WeightsError(f"{source}: --guidance needs negative conditioning tokens, neg_emb.pt")
    if skip.skip == "tokens" and not skip.dense and not model.predicts:
        log.warning("%s: no mask predictor there, every token will be computed", source)
    for parameter in model.parameters():  # not the buffers: rotary frequencies stay exact
        parameter.data = parameter.data.to(device, dtype)
        if parameter.ndim == 5 and device.type == "cpu":  # on an H100 a decode is 1.5 times slower
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    kind = TokenSkippingUpscaler if skip.skip == "tokens" else SeedVR2Upscaler
    return kind(name, model.to(device), skip, steps, guidance)


def restore(preset: str, source: Path) -> SeedVR2:
    """The networks to go on training, in float32; a predictor that no file holds starts untrained.

    Raises:
        WeightsError: when files are missing or do not fit.
    """
    model = read_model(preset, source).float()
    if model.predictor is None:
        model.predictor = build_predictor(model.config.predictor)
    return model


def read_model(preset: str, source: Path) -> SeedVR2:
    """The networks as they are in a whole-model file or a folder, on the CPU."""
    config = PRESETS[preset]
    with torch.device("meta"):
        model = SeedVR2(config)
    if source.is_dir():
        _load_folder(model, preset, source)
    else:
        tensors = read_tensors(source)
        _follow(model, tensors)
        load_strictly(model, tensors, f"seedvr2:{preset}")
    _check_frequencies(model.dit, f"seedvr2:{preset}")
    return model


def _follow(model: SeedVR2, tensors: Mapping[str, Tensor]) -> None:
    """Give a model the parts in which files of one preset differ: the predictor's kind, and
    negative conditioning where guidance needs none."""
    any_tau = "predictor.log_spread" in tensors
    if any_tau != model.config.predictor.any_tau:
        with torch.device("meta"):
            model.predictor = build_predictor(replace(model.config.predictor, any_tau=any_tau))
    if "text.negative" not in tensors and model.config.sampling.guidance == 1:
        model.text.negative = None


def _load_folder(model: SeedVR2, preset: str, folder: Path) -> None:
    """Fill `model` from the files of a folder, told apart by what is in them, not by their
    names."""
    files = _sort_files(folder)
    transformer = f"seedvr2:{SAME_FILES.get(preset, preset)} transformer"
    text = dict[str, Tensor]()
    wanted = [transformer, "seedvr2 autoencoder"]
    if missing := [kind for kind in wanted if kind not in files]:
        seen = (
            ", ".join(f"{path.name} ({kind})" for kind, path in files.items()) or "no weight file"
        )
        raise WeightsError(f"{folder}: no {' and no '.join(missing)} there; it holds {seen}")
    for kind, network in zip(wanted, (model.dit, model.vae), strict=True):
        tensors = read_tensors(files[kind])
        load_strictly(network, normalise(tensors), kind)
        text |= {
            _PACKED_TEXT[n]: v
            for k, v in tensors.items()
            if (n := k.removeprefix(_PREFIX)) in _PACKED_TEXT
        }
    for which in ("positive", "negative"):
        if which not in text and (kind := f"seedvr2 {which} conditioning") in files:
            text[which] = read_tensors(files[kind])[""]
    if "positive" not in text:
        raise WeightsError(f"{folder}: no pos_emb.pt there (58 x 5120 conditioning tokens)")
    guided = model.config.sampling.guidance != 1
    if guided and "negative" not in text:
        raise WeightsError(f"{folder}: no neg_emb.pt there (64 x 5120 conditioning tokens)")
    if "negative" not in text:
        model.text.negative = None
    load_strictly(model.text, text, "seedvr2 conditioning")
    _load_predictor(model, files, folder)


def _load_predictor(model: SeedVR2, files: Mapping[str, Path], folder: Path) -> None:
    present = [kind for kind in _PREDICTORS if kind in files]
    if not present:
        model.predictor = None
        return
    if len(present) > 1:
        names = " and ".join(files[kind].name for kind in present)
        raise WeightsError(f"{folder}: {names} are both mask predictors; keep one")
    (kind,) = present
    with torch.device("meta"):
        config = replace(model.config.predictor, any_tau=_PREDICTORS[kind])
        model.predictor = build_predictor(config)
    load_strictly(model.predictor, read_tensors(files[kind]), kind)


def _sort_files(folder: Path) -> dict[str, Path]:
    """The known weight files of a folder by kind; two of a kind are refused rather than guessed
    between."""
    files: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".pth", ".pt")):
        match = identify(normalise(read_inventory(path)), kinds())
        if match is None or not match.exact:
            continue
        if match.kind in files:
            raise WeightsError(
                f"{folder}: {files[match.kind].name} and {path.name} are both {match.kind}; "
                "keep one"
            )
        files[match.kind] = path
    return files


def normalise(entries: Mapping[str, T]) -> dict[str, T]:
    """A file's tensors, or their shapes, under our names."""
    return {new: entry for name, entry in entries.items() if (new := normal_name(name)) is not None}


def _check_frequencies(dit: DiT, name: str) -> None:
    """Angles are computed once for all layers, so the layers' frequency buffers must agree."""
    buffers = [value for key, value in dit.named_buffers() if key.endswith("rope.rope.freqs")]
    if any(not torch.equal(value, buffers[0]) for value in buffers):
        raise WeightsError(f"{name}: the layers of this file rotate by different frequencies")
