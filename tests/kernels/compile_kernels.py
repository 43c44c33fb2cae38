"""Compile the kernels for cards of compute capability 7.5, 8.0 and 9.0, as published 3B needs them;
needs no card. A line for each."""

import os

os.environ.pop("TRITON_INTERPRET", None)

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from skipsr.nn import kernels

CARDS = {75: "*fp16", 80: "*bf16", 90: "*bf16"}
INTEGERS = {"count", "height", "rows", "total", "frame", "width", "places", "blocks"}
CONSTANTS = {
    "_rms_modulate": {"WIDTH": 2560, "BLOCK": 4096},
    "_gated_add": {"WIDTH": 2560, "BLOCK": 1024},
    "_swiglu": {"BLOCK": 1024},
    "_place_heads": {"HEADS": 20, "DIM": 128, "PAIRS": 63, "BLOCK_H": 32, "BLOCK_D": 128},
    "_affine_silu": {"CHANNELS": 128, "BLOCK_P": 32, "BLOCK_C": 128},
    "_sums": {"CHANNELS": 128, "BLOCK_P": 32, "BLOCK_C": 128, "STEPS": 16},
    "_put_biased": {"CHANNELS": 128, "BLOCK": 1024, "ADD": True},
    "_copy_rows": {"CHANNELS": 128, "BLOCK_P": 32, "BLOCK_C": 128, "ORDERED": False},
}
OWN = {
    "_place_heads": {"cos": "*fp32", "sin": "*fp32", "places": "*i64"},
    "_affine_silu": {"scale": "*fp32", "shift": "*fp32"},
    "_sums": {"out": "*fp32"},
    "_copy_rows": {"rows": "*i64", "places": "*i64"},
}


def kind(kernel: str, name: str, half: str) -> str:
    if name in CONSTANTS[kernel]:
        return "constexpr"
    if name in OWN.get(kernel, {}):
        return OWN[kernel][name]
    if name == "eps":
        return "fp32"
    return "i32" if name in INTEGERS or name[-2:] in ("_t", "_h", "_w") else half


for card, half in CARDS.items():
    for name, constants in CONSTANTS.items():
        kernel = getattr(kernels, name)
        signature = {argument: kind(name, argument, half) for argument in kernel.arg_names}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        made = compile(source, target=GPUTarget("cuda", card, 32))
        print(card, name, len(made.asm["cubin"]))
