"""The node pack, loaded as ComfyUI loads it, on a stand-in of what it uses of ComfyUI."""

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
PACK = HERE.parents[2] / "integrations" / "comfyui"
_OURS = ("comfy", "comfy_api", "folder_paths", "skipsr_nodes")


class Pack:
    """The nodes and what they stand on."""

    def __init__(self) -> None:
        spec = importlib.util.spec_from_file_location(
            "skipsr_nodes", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["skipsr_nodes"] = module
        spec.loader.exec_module(module)
        extension = asyncio.run(module.comfy_entrypoint())
        nodes = asyncio.run(extension.get_node_list())
        self.nodes = {node.GET_SCHEMA().node_id: node for node in nodes}
        self.host, self.inputs = (
            sys.modules["skipsr_nodes.host"],
            sys.modules["skipsr_nodes.inputs"],
        )
        self.jobs, self.weights = (
            sys.modules["skipsr_nodes.jobs"],
            sys.modules["skipsr_nodes.weights"],
        )
        self.comfy = sys.modules["comfy.model_management"]
        self.utils = sys.modules["comfy.utils"]
        self.api = sys.modules["comfy_api.v0_0_2"]
        self.folders = sys.modules["folder_paths"]

    def video(self, file: Any) -> Any:
        return self.api.InputImpl.VideoFromFile(str(file) if isinstance(file, Path) else file)

    def run(self, node_id: str, **values: Any) -> Any:
        """What a node gives for these inputs, run as ComfyUI runs it."""
        hidden = {self.api.io.Hidden.unique_id: "7"}
        with torch.inference_mode():
            return self.nodes[node_id].PREPARE_CLASS_CLONE(hidden).execute(**values).result

    def widgets(self, node_id: str) -> dict[str, Any]:
        """What the frontend sends of widgets that nobody touched."""
        schema = self.nodes[node_id].GET_SCHEMA()
        return {i.id: i.widget["default"] for i in schema.inputs if "default" in i.widget}

    @property
    def left(self) -> list[Path]:
        """What lies in the temporary folder."""
        return sorted(Path(self.folders.temp_directory).glob("*"))


@pytest.fixture(scope="module")
def loaded() -> Iterator[Pack]:
    sys.path.insert(0, str(HERE / "stand_in"))
    try:
        yield Pack()
    finally:
        sys.path.remove(str(HERE / "stand_in"))
        for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
            del sys.modules[name]


@pytest.fixture
def pack(loaded: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """With empty model and temporary folders."""
    models = tmp_path / "models"
    kinds = ("seedvr2", "diffusion_models", "vae")
    for kind in kinds:
        (models / kind).mkdir(parents=True)
    folders = {kind: ([str(models / kind)], set()) for kind in kinds}
    folders["custom_nodes"] = ([str(tmp_path / "nodes")], set())
    monkeypatch.setattr(loaded.folders, "models_dir", str(models))
    monkeypatch.setattr(loaded.folders, "folder_names_and_paths", folders)
    monkeypatch.setattr(loaded.folders, "temp_directory", str(tmp_path / "temp"))
    monkeypatch.setattr(loaded.comfy, "asked_for", [])
    monkeypatch.setattr(loaded.utils, "shown", [])
    return loaded


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Counts how often weights are loaded."""
    from skipsr.loading import Model

    counted, load = SimpleNamespace(count=0), Model.load

    def counting(model: Model, *arguments: Any) -> Any:
        counted.count += 1
        return load(model, *arguments)

    monkeypatch.setattr(Model, "load", counting)
    return counted
