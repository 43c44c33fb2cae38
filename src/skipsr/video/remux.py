"""Copies what is not enlarged: audio and subtitle packets, titles, chapters, covers, fonts."""

import logging
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

from av.codec import CodecContext
from av.container import OutputContainer
from av.error import ArgumentError, FFmpegError
from av.packet import Packet
from av.stream import AttachmentStream, Stream

from skipsr.video.container import is_cover, open_input, video_stream
from skipsr.video.probe import SourceInfo

log = logging.getLogger(__name__)

# the muxer of MPEG-TS takes any codec, but players know only these in it
_TS_CODECS = {"aac", "ac3", "eac3", "mp2", "mp3", "dts", "dca", "opus", "dvbsub", "dvb_subtitle"}
_OF_THE_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
_OF_THE_VIDEO = ("language", "title", "timecode")  # the rest is of its packets
_WITH_EDITS = ("mp4", "mov")  # containers that can hide a part of what they hold
_COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


class Remuxer:
    """Copies the other streams of a source into an output, up to a given time, again and again.

    The source is demuxed a second time for this, so a long film's audio never lies in memory.
    """

    def __init__(self, info: SourceInfo, output: OutputContainer) -> None:
        self._output = output
        self._origin = info.origin * info.time_base  # seconds
        self._input = open_input(info.path)
        self._streams = self._add_streams(info)
        self._copy_description(info)
        self._copy_attachments(info)
        self._packets = self._demux()
        self._next = next(self._packets, None)
        self._refused: dict[int, int] = {}

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
            log.warning("stream %d: %d packets with broken times are left out", index, packets)
        self._refused.clear()
        self._packets.close()
        self._input.close()

    def _add_streams(self, info: SourceInfo) -> dict[int, Stream]:
        added: dict[int, Stream] = {}
        enlarged = video_stream(self._input, info.path).index
        for stream in self._input.streams:
            if stream.index == enlarged or stream.type not in ("audio", "subtitle", "video"):
                continue
            if stream.type == "video" and not is_cover(stream):
                log.warning(
                    "%s: video stream %d (%s) is left out: one is enlarged, stream %d",
                    *(info.path, stream.index, _codec(stream), enlarged),
                )
                continue
            try:
                copy = self._add(stream, info.path)
            except (ValueError, FFmpegError):
                log.warning(
                    "%s: %s stream %d (%s) is left out: %s files cannot hold it",
                    info.path,
                    "cover" if is_cover(stream) else stream.type,
                    stream.index,
                    _codec(stream),
                    self._output.format.name,
                )
                continue
            if copy is not None:
                copy.metadata.update(stream.metadata)
                copy.disposition = stream.disposition
                added[stream.index] = copy
        return added

    def _add(self, stream: Stream, path: Path) -> Stream | None:
        """The stream's copy; None for a cover that is attached, as in Matroska."""
        if is_cover(stream):
            if _codec(stream) not in _COVERS:
                raise ValueError("players would not show it")
            if self._output.format.name == "matroska":
                usual, kind = _COVERS[_codec(stream)]
                name = stream.metadata.get("filename", usual)
                self._output.add_attachment(name, kind, _picture(path, stream.index))
                return None
            if self._output.format.name != "mp4":
                raise ValueError("it would be a second video, or nothing")
        if self._output.format.name == "mpegts" and _codec(stream) not in _TS_CODECS:
            raise ValueError("players would not recognise it")
        return self._output.add_stream_from_template(stream)

    def _copy_description(self, info: SourceInfo) -> None:
        for key, value in self._input.metadata.items():
            if key.lower() not in _OF_THE_FILE:
                self._output.metadata[key] = value
        told = video_stream(self._input, info.path).metadata
        self._output.streams.video[0].metadata.update(
            {key: told[key] for key in _OF_THE_VIDEO if key in told}
        )
        if not self._origin:
            self._output.set_chapters(self._input.chapters())

    def _copy_attachments(self, info: SourceInfo) -> None:
        files = [stream for stream in self._input.streams if isinstance(stream, AttachmentStream)]
        if self._output.format.name == "matroska":
            for stream in files:
                if stream.name and stream.mimetype:
                    self._output.add_attachment(stream.name, stream.mimetype, stream.data)
        elif files:
            log.warning(
                "%s: what is attached to it, as fonts are, is left out: %s files cannot hold it",
                *(info.path, self._output.format.name),
            )

    def _demux(self) -> "Generator[Packet[Stream]]":
        if not self._streams:
            return
        streams = [self._input.streams[index] for index in self._streams]
        for packet in _shown(self._input.demux(*streams), self._output.format.name in _WITH_EDITS):
            if is_cover(packet.stream):
                packet.pts = packet.dts = 0
            if packet.size == 0 or (packet.pts is None and packet.dts is None):
                continue
            if packet.dts is None:
                packet.dts = packet.pts
            yield packet

    def _mux(self, packet: "Packet[Stream]") -> None:
        assert packet.dts is not None
        shift = round(self._origin / packet.time_base)
        packet.dts -= shift
        if packet.pts is not None:
            packet.pts -= shift
        if packet.dts < 0 and self._output.format.name == "avi":
            return  # a decoder's run-in; AVI would delay the video for it
        index = packet.stream_index
        packet.stream = self._streams[index]
        try:
            self._output.mux_one(packet)
        except ArgumentError:  # what muxers say to times that stand still or go back
            self._refused[index] = self._refused.get(index, 0) + 1


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


def _picture(path: Path, index: int) -> bytes:
    """A cover, which is a stream of one packet."""
    with open_input(path) as container:
        packets = container.demux(container.streams[index])
        return next((bytes(packet) for packet in packets if packet.size), b"")


def _time(packet: "Packet[Stream]") -> Fraction:
    time = packet.dts if packet.dts is not None else packet.pts
    return (time or 0) * packet.time_base


def _codec(stream: Stream) -> str:
    context = cast("CodecContext | None", stream.codec_context)  # None: unknown to FFmpeg
    return context.codec.canonical_name if context is not None else "unknown codec"
