"""H.264 whose fields are pictures of their own (PAFF), as camcorders and broadcasters write it; no
encoder of PyAV's does. Every macroblock holds its samples as they are (I_PCM)."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

SIDE = 64  # pixels, of frames
_ACROSS, _DOWN = SIDE // 16, SIDE // 32  # macroblocks of a field
_DELIMITER = b"\0\0\0\1\x09\x10"


class _Bits:
    def __init__(self) -> None:
        self._bits = ""

    def u(self, *pairs: tuple[int, int]) -> "_Bits":
        """Numbers of so many bits: `(count, value)`."""
        for count, value in pairs:
            self._bits += format(value, f"0{count}b") if count else ""
        return self

    def ue(self, *values: int) -> "_Bits":
        """Exponential Golomb codes."""
        for value in values:
            code = format(value + 1, "b")
            self._bits += "0" * (len(code) - 1) + code
        return self

    def aligned(self) -> "_Bits":
        self._bits += "0" * (-len(self._bits) % 8)
        return self

    def unit(self, header: int) -> bytes:
        """A NAL unit of what was put in."""
        bits = self._bits + "1"
        bits += "0" * (-len(bits) % 8)
        out, zeros = bytearray(), 0
        for byte in (int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)):
            if zeros >= 2 and byte <= 3:
                out.append(3)
                zeros = 0
            out.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return b"\0\0\0\1" + bytes([header]) + bytes(out)


def _headers() -> bytes:
    sequence = _Bits().u((8, 77), (8, 0), (8, 30)).ue(0, 0, 0, 4, 1).u((1, 0))
    sequence.ue(_ACROSS - 1, _DOWN - 1).u((1, 0), (1, 0), (1, 1), (1, 0), (1, 1))
    sequence.u((4, 0), (1, 1), (32, 1), (32, 50), (1, 1), (4, 0))  # 50 fields a second
    picture = _Bits().ue(0, 0).u((2, 0)).ue(0, 0, 0).u((3, 0)).ue(0, 0, 0).u((3, 0))
    return sequence.unit(0x67) + picture.unit(0x68)


def _field(frame: int, level: int, bottom: int) -> bytes:
    field = _Bits().ue(0, 7, 0).u((4, 0), (1, 1), (1, bottom))
    if not bottom:
        field.ue(frame % 2)
    field.u((8, bottom)).u((1, 0), (1, 0)) if not bottom else field.u((8, bottom), (1, 0))
    field.ue(0)
    for _ in range(_ACROSS * _DOWN):
        field.ue(25).aligned().u(*[(8, level)] * 256, *[(8, 128)] * 128)
    return field.unit(0x61 if bottom else 0x65)


def write_fields(path: Path, levels: list[int], *, apart: bool) -> Path:
    """An MPEG-TS of flat frames, 25 a second, whose fields have times of their own if `apart`."""
    bare = path.with_suffix(".h264")
    bare.write_bytes(b"".join(_headers() + _field(0, 99, k) for k in range(2)))
    with av.open(str(path), "w", format="mpegts") as output, av.open(str(bare)) as template:
        stream = output.add_stream_from_template(template.streams.video[0])
        for time, data in _packets(levels, apart):
            packet = av.Packet(_DELIMITER + data)
            packet.stream, packet.time_base = stream, Fraction(1, 50)
            packet.pts = packet.dts = time
            packet.is_keyframe = time % 2 == 0
            output.mux(packet)
    return path


def _packets(levels: list[int], apart: bool) -> Iterator[tuple[int, bytes]]:
    for frame, level in enumerate(levels):
        first, second = _headers() + _field(frame, level, 0), _field(frame, level, 1)
        if apart:
            yield 2 * frame + 50, first
            yield 2 * frame + 51, second
        else:
            yield 2 * frame + 50, first + second
