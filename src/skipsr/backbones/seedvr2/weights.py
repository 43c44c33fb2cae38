"""The family's files: what is in them, how to know them, and networks made of them.

Our module names are the published ones, so strict loading needs no map. Three variations are
accepted: the old names of the autoencoder's attention, a `model.diffusion_model.` or
`diffusion_model.` prefix, and conditioning tokens packed beside the transformer. What is quantised
stays so, but for the rotary frequencies.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import TypeVar

import torch

from skipsr.backbones.seedvr2.attention import frequencies_of
from skipsr.backbones.seedvr2.config import PRESETS, SAME_FILES, DiTConfig, SeedVR2Config
from skipsr.backbones.seedvr2.dit import DiT
from skipsr.backbones.seedvr2.model import SeedVR2, build_predictor
from skipsr.errors import WeightsError
from skipsr.weights.checkpoint_formats import under
from skipsr.weights.folder import WeightFile, WeightFiles
from skipsr.weights.identify import FileKind, Inventory
from skipsr.weights.load import inventory, load_strictly
from skipsr.weights.meta import on_meta
from skipsr.weights.quantized import QuantizedTensor, Stored, plain

T = TypeVar("T")

_PUBLISHED = ("3b", "7b")  # in parts
_PREFIXES = ("model.diffusion_model.", "diffusion_model.")
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_AUTOENCODER = "seedvr2 autoencoder"
_PREDICTORS = {"mask predictor": False, "mask predictor for any tau": True}
_TEXTS = {"positive": "pos_emb", "negative": "neg_emb"}  # and the names they are published by
_NEGATIVE = "text.negative"
_FREQUENCIES = "rope.rope.freqs"


def kinds() -> Iterator[FileKind]:
    """Every kind of file the family knows; small models come first, and at once."""
    for preset in (preset for preset in reversed(PRESETS) if preset not in SAME_FILES):
        yield from _kinds_of(preset, PRESETS[preset])


@cache
def _kinds_of(preset: str, config: SeedVR2Config) -> tuple[FileKind, ...]:
    """The files of a preset; 3b stands for the parts that it shares with 7b."""
    with on_meta():
        whole = inventory(SeedVR2(config))
        predictors = {
            name: inventory(build_predictor(replace(config.predictor, any_tau=any_tau)))
            for name, any_tau in _PREDICTORS.items()
        }
    found = [*_whole_models(f"seedvr2:{preset} whole model", whole, predictors)]
    if preset in _PUBLISHED:
        found.append(FileKind(f"seedvr2:{preset} transformer", under("dit.", whole)))
    if preset == "3b":
        texts = under("text.", whole)
        found.append(FileKind(_AUTOENCODER, under("vae.", whole)))
        found += [FileKind(_text_kind(which), {"": texts[which]}) for which in _TEXTS]
        found += [FileKind(f"seedvr2 {name}", held) for name, held in predictors.items()]
    return tuple(found)


def normal_name(name: str) -> str | None:
    """Our name of a tensor in a published file or repack; None for packed conditioning tokens."""
    name = _bare(name)
    if name in map(_packed_name, _TEXTS):
        return None
    match = re.fullmatch(r"(.*\.attentions\.0\.)(query|key|value|proj_attn)(\..*)", name)
    return f"{match[1]}{_OLD_ATTENTION[match[2]]}{match[3]}" if match else name


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def normalise(entries: Mapping[str, T]) -> dict[str, T]:
    """A file's tensors, or their shapes, under our names."""
    return {new: entry for name, entry in entries.items() if (new := normal_name(name)) is not None}


def networks(preset: str, files: WeightFiles) -> SeedVR2:
    """The networks as they are in the files, on the CPU; without a predictor where there is none.

    Files are one with the whole model, or one with the transformer and the other parts beside it.

    Raises:
        WeightsError: when files are missing, damaged, ambiguous or do not fit the preset.
    """
    name, config = f"seedvr2:{SAME_FILES.get(preset, preset)}", PRESETS[preset]
    file = files.network(name)
    if file.kind == f"{name} transformer":
        tensors = _joined(file, files.with_beside(), guided=config.sampling.guidance != 1)
    else:
        tensors = file.stored()
    any_tau = "predictor.log_spread" in tensors
    predicts = any(key.startswith("predictor.") for key in tensors)
    if predicts and any_tau != config.predictor.any_tau:
        config = replace(config, predictor=replace(config.predictor, any_tau=any_tau))
    with on_meta():
        model = SeedVR2(config)
    if not predicts:
        model.predictor = None
    if _NEGATIVE not in tensors and config.sampling.guidance == 1:
        model.text.negative = None
    load_strictly(model, _with_exact_frequencies(tensors, config.dit), f"{name} ({file.path})")
    _check_frequencies(model.dit, name)
    return model


def _joined(transformer: WeightFile, files: WeightFiles, *, guided: bool) -> dict[str, Stored]:
    """A whole model's tensors out of files of its parts."""
    packed = {_packed_name(which): which for which in _TEXTS}
    names = {packed[n]: k for k in transformer.shapes if (n := _bare(k)) in packed}
    texts = {which: files.part(_text_kind(which)) for which in _TEXTS if which not in names}
    parts = {
        "vae.": files.part(_AUTOENCODER),
        "predictor.": files.part(*(f"seedvr2 {name}" for name in _PREDICTORS)),
    }
    missing = [] if parts["vae."] else [f"{_AUTOENCODER} (ema_vae)"]
    for which, file in texts.items():
        if file is None and (guided or which == "positive"):
            missing.append(f"{which} conditioning ({_TEXTS[which]})")
    if missing:
        lack = files.lack(*missing)
        raise WeightsError(f"{lack}; ByteDance-Seed/SeedVR2-3B on the Hugging Face Hub has them")
    own = transformer.stored()
    tensors = {f"text.{which}": own[name] for which, name in names.items()}
    tensors |= {f"text.{which}": file.stored()[""] for which, file in texts.items() if file}
    tensors |= {f"dit.{name}": value for name, value in normalise(own).items()}
    for prefix, file in parts.items():
        if file is not None:
            tensors |= {prefix + k: value for k, value in normalise(file.stored()).items()}
    return tensors


def _whole_models(
    name: str, whole: Inventory, predictors: Mapping[str, Inventory]
) -> Iterator[FileKind]:
    """Files with all of a model, by what they hold beside what they must."""
    must = {k: v for k, v in whole.items() if k != _NEGATIVE and not k.startswith("predictor.")}
    for predictor, held in {"": {}, **predictors}.items():
        tensors = must | {f"predictor.{k}": v for k, v in held.items()}
        words = f"{name} with {predictor}" if predictor else name
        yield FileKind(words, tensors)
        if _NEGATIVE in whole:
            joint = "and" if predictor else "with"
            tensors = tensors | {_NEGATIVE: whole[_NEGATIVE]}
            yield FileKind(f"{words} {joint} negative conditioning", tensors)


def _packed_name(which: str) -> str:
    return f"{which}_conditioning"


def _text_kind(which: str) -> str:
    return f"seedvr2 {which} conditioning"


def _with_exact_frequencies(tensors: Mapping[str, Stored], config: DiTConfig) -> dict[str, Stored]:
    """With the frequencies of the design where a file holds them rounded.

    Angles are their multiples: those of float16 are off by up to an eighth, and files that were
    rounded to eight bits hold them to 6 %. They are replaced only if they round to what the file
    holds, which may be several types in one file.
    """
    exact = frequencies_of(config)

    def rounds_to(value: Stored) -> bool:
        dtype = torch.float8_e4m3fn if isinstance(value, QuantizedTensor) else value.dtype
        return torch.equal(exact.to(dtype).float(), plain(value).float())

    return dict(tensors) | {
        name: exact.clone()  # files are written without shared tensors
        for name, value in tensors.items()
        if name.endswith(_FREQUENCIES) and rounds_to(value)
    }


def _check_frequencies(dit: DiT, name: str) -> None:
    """Angles are computed once for all layers, so the layers' frequency buffers must agree."""
    buffers = [value for key, value in dit.named_buffers() if key.endswith(_FREQUENCIES)]
    if any(not torch.equal(value, buffers[0]) for value in buffers):
        raise WeightsError(f"{name}: the layers of this file rotate by different frequencies")
