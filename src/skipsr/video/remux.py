"""Copies what is not enlarged: audio and subtitle packets, titles, chapters, covers, fonts."""

import logging
import math
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

from av.codec import CodecContext
from av.container import OutputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import AttachmentStream, Stream

from skipsr.video.clock import going_on
from skipsr.video.container import demuxed, is_cover, open_input, video_stream
from skipsr.video.probe import SourceInfo

if TYPE_CHECKING:
    from av.container.core import Chapter

log = logging.getLogger(__name__)

# the muxer of MPEG-TS takes any codec, but players know only these in it
_TS_CODECS = {"aac", "ac3", "eac3", "mp2", "mp3", "dts", "dca", "opus", "dvbsub", "dvb_subtitle"}
_OF_THE_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
_OF_THE_VIDEO = ("language", "title", "timecode")  # the rest is of its packets
_COUNTED = ("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS_")  # Matroska's tags of a whole stream
_WITH_EDITS = ("mp4", "mov")  # containers that can hide a part of what they hold
_COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a source, in seconds of its clock; None where it has no bound."""

    start: Fraction | None = None
    end: Fraction | None = None

    @classmethod
    def of(cls, info: SourceInfo) -> "Span":
        bounds = info.cut.start, info.cut.end
        start, end = (None if at is None else at * info.time_base for at in bounds)
        return cls(start, end)

    def within(self, start: int, end: int, time_base: Fraction) -> tuple[int, int]:
        """What of some time lies in it."""
        if self.start is not None:
            start = max(start, math.ceil(self.start / time_base))
        if self.end is not None:
            end = min(end, math.ceil(self.end / time_base))
        return start, end

    def chapters(self, chapters: "Iterable[Chapter]") -> "Iterator[Chapter]":
        """Those that reach into it, as far as they do, counted from its start."""
        for chapter in chapters:
            time_base = chapter["time_base"] or Fraction(1, 1000)
            start, end = self.within(chapter["start"], chapter["end"], time_base)
            shift = math.ceil((self.start or 0) / time_base)
            if start < end:
                chapter["start"], chapter["end"] = start - shift, end - shift
                yield chapter

    def packets(
        self, packets: "Iterator[Packet[Stream]]", streams: Iterable[Stream]
    ) -> "Iterator[Packet[Stream]]":
        """Those that begin in it, and texts as long as they are shown in it; no more are read once
        all sound has passed its end."""
        kinds = {stream.index: stream.type for stream in streams if not is_cover(stream)}
        awaited = {index for index, kind in kinds.items() if kind == "audio"} or set(kinds)
        for packet in packets:
            time = packet.dts if packet.pts is None else packet.pts
            if self == Span() or time is None or packet.stream_index not in kinds:
                yield packet
                continue
            is_text, lasts = kinds[packet.stream_index] == "subtitle", packet.duration or 0
            start, end = self.within(time, time + max(1, lasts), packet.time_base)
            if start < end and is_text:
                packet.pts = packet.dts = start
                packet.duration = end - start if lasts else 0
                yield packet
            elif start < end and start == time:
                yield packet
            elif end <= time:
                awaited.discard(packet.stream_index)
                if not awaited:
                    return


class Remuxer:
    """Copies the other streams of a source into an output, up to a given time, again and again.

    Of a part of the source they are copied as far as they belong to it.

    The source is demuxed a second time for this, so a long film's audio never lies in memory.
    """

    def __init__(
        self, info: SourceInfo, output: OutputContainer, without: Collection[int] = ()
    ) -> None:
        """
        Args:
            without: streams that the output is known to refuse, by index.
        """
        self._output, self._path = output, info.path
        self._origin = info.origin * info.time_base  # seconds
        self._restarts = info.restarts
        self._span = Span.of(info)
        self._lost: list[str] = []
        self._input = open_input(info.path, to_end=True)
        self._enlarged = video_stream(self._input, info.path)
        self._streams = self._add_streams(without)
        self._copy_description()
        self._copy_attachments()
        self._packets = self._demux()
        self._next = next(self._packets, None)
        self._refused: dict[int, int] = {}

    def say_what_is_lost(self) -> None:
        """Tell the log which streams the output has not."""
        for sentence in dict.fromkeys(self._lost):
            log.warning("%s: %s", self._path, sentence)

    def copy_until(self, seconds: Fraction | None) -> None:
        """Copy packets up to a time of the source, or all that are left."""
        while self._next is not None:
            packet = self._next
            if seconds is not None and _time(packet) > seconds:
                return
            self._mux(packet)
            self._next = next(self._packets, None)

    def close(self) -> None:
        for index, packets in self._refused.items():
            log.warning(
                "stream %d: %d packets that are damaged or have broken times are left out",
                *(index, packets),
            )
        self._refused.clear()
        self._packets.close()
        self._input.close()

    def _add_streams(self, without: Collection[int]) -> dict[int, Stream]:
        added: dict[int, Stream] = {}
        cannot = f"is left out: {self._output.format.name} files cannot hold it"
        for stream in self._input.streams:
            is_video = stream.type == "video" and stream.index != self._enlarged.index
            if not (is_video or _is_copied(stream)):
                continue
            name = f"{stream.type} stream {stream.index} ({_codec(stream)})"
            if is_cover(stream):
                name = f"cover, {name},"
            elif is_video:
                self._lost.append(f"{name} is left out: {self._enlarged.index} is enlarged")
                continue
            try:
                copy = None if stream.index in without else self._add(stream)
            except (ValueError, FFmpegError):
                copy = None
            if copy is not None:
                copy.metadata.update(self._told(stream.metadata))
                copy.disposition = stream.disposition
                added[stream.index] = copy
            elif not (is_cover(stream) and self._attach(stream)):
                self._lost.append(f"{name} {cannot}")
        if count := self._count_data():
            plural = "s" if count > 1 else ""
            self._lost.append(
                f"{count} stream{plural} of data left out: sound and texts are copied"
            )
        return added

    def _count_data(self) -> int:
        """Streams of telemetry and the like, which are not copied; timecode and chapters are."""
        streams = (stream for stream in self._input.streams if stream.type == "data")
        count = sum("timecode" not in stream.metadata for stream in streams)
        has_chapters = "mp4" in self._input.format.name and self._input.chapters()
        return max(0, count - 1) if has_chapters else count  # they are a stream there

    def _add(self, stream: Stream) -> Stream:
        container = self._output.format.name
        if is_cover(stream) and container != "mp4":
            raise ValueError("it would be a second video, or nothing")
        if container == "mpegts" and _codec(stream) not in _TS_CODECS:
            raise ValueError("players would not recognise it")
        return self._output.add_stream_from_template(stream)

    def _attach(self, cover: Stream) -> bool:
        """Attach a cover, which is how Matroska holds it; whether that can be."""
        if self._output.format.name != "matroska" or _codec(cover) not in _COVERS:
            return False
        name, kind = _COVERS[_codec(cover)]
        with open_input(self._path) as container:  # it is a stream of one packet
            packets = container.demux(container.streams[cover.index])
            picture = next((bytes(packet) for packet in packets if packet.size), b"")
        self._output.add_attachment(cover.metadata.get("filename", name), kind, picture)
        return True

    def _copy_description(self) -> None:
        for key, value in self._told(self._input.metadata).items():
            if key.lower() not in _OF_THE_FILE:
                self._output.metadata[key] = value
        told = self._told(self._enlarged.metadata).items()
        self._output.streams.video[0].metadata.update(
            {key.lower(): value for key, value in told if key.lower() in _OF_THE_VIDEO}
        )
        if self._span != Span():
            self._output.set_chapters([*self._span.chapters(self._input.chapters())])
        elif not self._origin:
            self._output.set_chapters(self._input.chapters())

    def _told(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """Without what is true of the whole source alone."""
        if self._span == Span():
            return dict(metadata)
        told = {key: value for key, value in metadata.items() if not key.startswith(_COUNTED)}
        for key in [*told]:
            if key.lower() == "timecode" and self._span.start is not None:
                del told[key]
                self._lost.append("its timecode is left out, which is that of its first frame")
        return told

    def _copy_attachments(self) -> None:
        files = [stream for stream in self._input.streams if isinstance(stream, AttachmentStream)]
        container = self._output.format.name
        if container == "matroska":
            for stream in files:
                if stream.name and stream.mimetype:
                    self._output.add_attachment(stream.name, stream.mimetype, stream.data)
        elif files:
            self._lost.append(
                f"what is attached, as fonts are, is left out: {container} files cannot hold it"
            )

    def _demux(self) -> "Generator[Packet[Stream]]":
        if not self._streams:
            return
        streams = [self._input.streams[index] for index in self._streams]
        packets = going_on(demuxed(self._input, *streams), self._restarts)
        shown = _shown(packets, self._output.format.name in _WITH_EDITS)
        for packet in self._span.packets(shown, streams):
            if is_cover(packet.stream):
                packet.pts = packet.dts = 0
            if packet.size == 0 or (packet.pts is None and packet.dts is None):
                continue
            if packet.dts is None:
                packet.dts = packet.pts
            yield packet

    def _mux(self, packet: "Packet[Stream]") -> None:
        assert packet.dts is not None
        _move(packet, -self._origin)
        if packet.dts < 0 and self._output.format.name == "avi":
            return  # a decoder's run-in; AVI would delay the video for it
        index = packet.stream_index
        packet.stream = self._streams[index]
        try:
            self._output.mux_one(packet)
        except (ArgumentError, InvalidDataError):  # of times that go back, and damaged sound
            self._refused[index] = self._refused.get(index, 0) + 1


def say_sound_is_lost(target: Path, info: SourceInfo) -> None:
    """Tell the log that images hold no sound, which a name without suffix need not have meant."""
    if info.kind == "video" and copied_streams(info):
        log.warning(
            "%s is written as images, without sound and texts: for a video give a name such as %s",
            *(target, target.with_name(f"{target.name}.mp4").name),
        )


def copied_streams(info: SourceInfo) -> list[int]:
    """Streams that are to be copied, by index."""
    with open_input(info.path, to_end=True) as container:
        return [stream.index for stream in container.streams if _is_copied(stream)]


def _is_copied(stream: Stream) -> bool:
    """Whether a stream is to be copied; the one that is enlarged is no cover."""
    return stream.type in ("audio", "subtitle") or (stream.type == "video" and is_cover(stream))


def _shown(packets: "Iterator[Packet[Stream]]", with_edits: bool) -> "Iterator[Packet[Stream]]":
    """Without what an edit list hides before the start, but for a packet as a decoder's run-in.

    Containers `with_edits` keep it all: theirs hides it again.
    """
    hidden: dict[int, Packet[Stream]] = {}
    begun: set[int] = set()
    for packet in packets:
        index = packet.stream_index
        if packet.is_discard and index not in begun and not with_edits:
            hidden[index] = packet
            continue
        begun.add(index)
        if index in hidden:
            yield hidden.pop(index)
        yield packet


def _move(packet: "Packet[Stream]", seconds: Fraction) -> None:
    """Move a packet in time, also by a part of a tick, which in AVI lasts as long as a packet."""
    ticks, parts = (seconds / packet.time_base).as_integer_ratio()
    packet.time_base /= parts
    packet.duration = (packet.duration or 0) * parts
    packet.dts, packet.pts = (
        None if time is None else time * parts + ticks for time in (packet.dts, packet.pts)
    )


def _time(packet: "Packet[Stream]") -> Fraction:
    time = packet.dts if packet.dts is not None else packet.pts
    return (time or 0) * packet.time_base


def _codec(stream: Stream) -> str:
    context = cast("CodecContext | None", stream.codec_context)  # None: unknown to FFmpeg
    return context.codec.canonical_name if context is not None else "unknown codec"
