"""skipsr's nodes for ComfyUI, which loads this folder out of its `custom_nodes`."""

from comfy_api.v0_0_2 import ComfyExtension, io

from .nodes import NODES


class SkipsrExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)


async def comfy_entrypoint() -> SkipsrExtension:
    return SkipsrExtension()
