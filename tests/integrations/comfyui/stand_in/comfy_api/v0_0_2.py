"""The schema V3 as far as it is used, and video files."""

import shutil
from abc import ABC, abstractmethod
from io import BytesIO

from comfy_api import io


class ComfyExtension(ABC):
    @abstractmethod
    async def get_node_list(self): ...


class VideoInput(ABC):
    @abstractmethod
    def save_to(self, path, format="auto", codec="auto", metadata=None): ...

    def get_stream_source(self):
        buffer = BytesIO()
        self.save_to(buffer)
        buffer.seek(0)
        return buffer


class VideoFromFile(VideoInput):
    def __init__(self, file):
        self._file = file

    def get_stream_source(self):
        if isinstance(self._file, BytesIO):
            self._file.seek(0)
        return self._file

    def save_to(self, path, format="auto", codec="auto", metadata=None):
        shutil.copyfile(self._file, path)


class Input:
    Video = VideoInput
    Image = object


class InputImpl:
    VideoFromFile = VideoFromFile


__all__ = ["ComfyExtension", "Input", "InputImpl", "io"]
