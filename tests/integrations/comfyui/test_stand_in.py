"""The stand-in promises nothing that ComfyUI lacks; seen in its sources, where there are any."""

import ast
import os
from pathlib import Path

import pytest

CHECKOUT = Path(os.environ.get("COMFYUI_DIR", ""))
needs_checkout = pytest.mark.skipif(
    "COMFYUI_DIR" not in os.environ, reason="COMFYUI_DIR names no checkout of ComfyUI"
)


def functions(path: str) -> dict[str, list[str]]:
    """Functions and methods of a file, by dotted name, and their parameters."""
    found: dict[str, list[str]] = {}

    def collect(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                every = (*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs)
                found[prefix + child.name] = [a.arg for a in every if a.arg not in ("self", "cls")]
            elif isinstance(child, ast.ClassDef):
                found[prefix + child.name] = []
                collect(child, f"{prefix}{child.name}.")

    collect(ast.parse((CHECKOUT / path).read_text(encoding="utf-8")), "")
    return found


@needs_checkout
def test_functions_take_what_they_are_given():
    management = functions("comfy/model_management.py")
    assert "InterruptProcessingException" in management
    assert management["throw_exception_if_processing_interrupted"] == []
    assert management["get_torch_device"] == []
    assert management["free_memory"][:2] == ["memory_required", "device"]
    assert "soft_empty_cache" in management
    folders = functions("folder_paths.py")
    assert folders["get_temp_directory"] == []
    assert folders["get_filename_list"] == ["folder_name"]
    assert folders["get_folder_paths"] == ["folder_name"]
    assert folders["get_full_path"] == ["folder_name", "filename"]
    assert folders["add_model_folder_path"][:2] == ["folder_name", "full_folder_path"]


@needs_checkout
def test_the_schema_has_the_parameters_of_our_inputs(pack):
    schema = functions("comfy_api/latest/_io.py")
    common = {"id", "display_name", "optional", "tooltip"}
    for name, widget in pack.api.io.WIDGETS.items():
        assert common | set(widget) <= set(schema[f"{name}.Input.__init__"])
    assert common <= set(schema["Input.__init__"])
    assert {"Video", "Image", "Mask", "Schema", "ComfyNode", "NodeOutput"} <= schema.keys()
    assert schema["Custom"] == ["io_type"]
    assert schema["ComfyNode.define_schema"] == []


@needs_checkout
def test_videos_and_progress_are_as_the_pinned_version_has_them():
    pinned = (CHECKOUT / "comfy_api/v0_0_2/__init__.py").read_text(encoding="utf-8")
    for name in ("ComfyExtension", "Input", "InputImpl", "io"):
        assert name in pinned
    bars = functions("comfy/utils.py")
    assert {"total", "node_id"} <= set(bars["ProgressBar.__init__"])
    assert bars["ProgressBar.update_absolute"][:2] == ["value", "total"]
    files = functions("comfy_api/latest/_input_impl/video_types.py")
    assert files["VideoFromFile.__init__"][0] == "file"
    assert files["VideoFromFile.get_stream_source"] == []
    assert files["VideoFromFile.save_to"][0] == "path"
