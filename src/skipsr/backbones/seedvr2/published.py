"""Which published files make a model.

Sizes and SHA-256 of the repacked transformers and autoencoder are those that several projects pin,
independently, at this commit; those of the conditioning are the Hub's own for the authors' files,
which converters of them name as their source. The repacks hold the authors' weights rounded to
float16, half of the bytes, as safetensors; that of 3B the first ones, which were replaced on 22
June 2025, as others found by comparing all tensors.
"""

from collections.abc import Mapping
from functools import partial

from skipsr.weights.published import PublishedFile

_AUTHORS = "ByteDance-Seed/SeedVR2-3B"
_AUTHORS_COMMIT = "37255ff8cccfb01071b87f635a5948ca8d53117c"
_REPACKS = "numz/SeedVR2_comfyUI"
_REPACKS_COMMIT = "09ced71023636e9bc8cdf9cdecfb2625d1e691e8"
_repack = partial(PublishedFile, repo=_REPACKS, revision=_REPACKS_COMMIT)
_original = partial(PublishedFile, repo=_AUTHORS, revision=_AUTHORS_COMMIT)

_SHARED = (
    _repack(
        name="ema_vae_fp16.safetensors",
        size=501_324_814,
        sha256="20678548f420d98d26f11442d3528f8b8c94e57ee046ef93dbb7633da8612ca1",
    ),
    _original(
        name="pos_emb.pt",
        size=595_100,
        sha256="fa07a14844314772266b66c3b95deb0027696d8fe7065721263db5176f45d799",
    ),
    _original(
        name="neg_emb.pt",
        size=656_540,
        sha256="6a43e5800ef2354f1c156d27535834da055cbec8248298b8923492bba2076581",
    ),
)

PUBLISHED: Mapping[str, tuple[PublishedFile, ...]] = {
    "3b": (
        *_SHARED,
        _repack(
            name="seedvr2_ema_3b_fp16.safetensors",
            size=6_783_018_808,
            sha256="2fd0e03a3dad24e07086750360727ca437de4ecd456f769856e960ae93e2b304",
        ),
    ),
    "7b": (
        *_SHARED,
        _repack(
            name="seedvr2_ema_7b_fp16.safetensors",
            size=16_479_334_424,
            sha256="7b8241aa957606ab6cfb66edabc96d43234f9819c5392b44d2492d9f0b0bbe4a",
        ),
    ),
}
"""Preset -> its files, small ones first. SeedVR's own, with many steps, are not among them."""
