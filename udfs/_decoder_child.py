"""The decoder process: reads untrusted media so that the worker need not.

It is spawned, never forked, imports neither torch nor pyspark nor pyarrow, and bounds itself before it reads a byte.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from fractions import Fraction
from typing import Any, BinaryIO

from ._decoder_wire import Message, pack, unpack
from ._errors import MediaError
from .frame_types import Frame, FrameError, FrameOptions, Limits

_READ_BYTES = 1 << 20
_SIGN_OF_LIFE_S = 1.0


def main(parent: int, memory_bytes: int) -> None:
    """Serve requests from stdin until it ends. `parent` is the process whose end must be this one's, too."""
    _bound(parent, memory_bytes)
    # Libraries that print must not get between the messages.
    out = os.dup(1)
    os.dup2(2, 1)
    with open(0, "rb", closefd=False) as stdin:
        line = _Line(stdin.read, out)
        while (request := line.receive()) is not None:
            _serve(request[0], line)


class _Line:
    """The line to the worker."""

    def __init__(self, read: Callable[[int], bytes], out: int) -> None:
        self._read, self._out = read, out
        self._last_sent = time.monotonic()

    def receive(self) -> Message | None:
        return unpack(self._read)

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        for piece in pack(header, body):
            view = memoryview(piece)
            while view:
                view = view[os.write(self._out, view) :]
        self._last_sent = time.monotonic()

    def alive(self) -> None:
        """Tell the worker that work goes on, but not too often."""
        if time.monotonic() - self._last_sent > _SIGN_OF_LIFE_S:
            self.send({"type": "alive"})


class _RemoteFile(io.RawIOBase):
    """A file that the worker reads on request, because only it has the credentials."""

    def __init__(self, line: _Line, size_bytes: int) -> None:
        self._line, self._size, self._position = line, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        if self._position < 0:
            raise OSError(errno.EINVAL, "a position before the start of the file")
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        size = min(len(buffer), self._size - self._position)
        if size <= 0:
            return 0
        self._line.send({"type": "read", "offset": self._position, "size": size})
        answer = self._line.receive()
        if answer is None:
            raise SystemExit
        header, body = answer
        if header.get("error"):
            raise OSError(errno.EIO, header["error"])
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)


def _serve(request: dict[str, Any], line: _Line) -> None:
    """Answer one request: results and, at the end, `done` or `error`."""
    try:
        with _source(request, line) as source:
            if request["type"] == "probe":
                from .probe import probe_media

                limits = Limits(**request["limits"])
                value = probe_media(
                    source, size_bytes=request["size_bytes"], limits=limits, keep_position=request["keep_position"]
                )
                line.send({"type": "value", "value": value})
            elif request["type"] == "times":
                from .frame_times import displayed_times

                stream, times = displayed_times(source, limits=Limits(**request["limits"]), alive=line.alive)
                line.send({"type": "value", "value": [stream, times]})
            else:
                for frame in _frames(source, request, line):
                    line.send(*_message(frame))
        line.send({"type": "done"})
    except MediaError as error:
        line.send({"type": "error", **error.as_row()})
    except MemoryError:
        line.send({"type": "error", "reason": "decoder_memory", "message": "", "payload": None})
    except BrokenPipeError:
        raise SystemExit from None
    except OSError as error:
        line.send({"type": "error", "reason": "read_failed", "message": str(error), "payload": None})
    except Exception as error:  # whatever a library raises on this media, the next one must be served
        text = f"{type(error).__name__}: {error}"
        line.send({"type": "error", "reason": "decoder_failed", "message": text, "payload": None})


@contextmanager
def _source(request: dict[str, Any], line: _Line) -> Iterator[str | BinaryIO]:
    """The media: a path, or a file on the other end of the line."""
    path = request["path"]
    if path is not None:
        yield os.fsdecode(bytes.fromhex(path))
        return
    with io.BufferedReader(_RemoteFile(line, request["size_bytes"]), _READ_BYTES) as file:
        yield file


def _frames(source: str | BinaryIO, request: dict[str, Any], line: _Line) -> Iterator[Frame | FrameError]:
    options, limits = _options(request["options"]), Limits(**request["limits"])
    if request["kind"] == "image":
        from .stills import still_frame

        yield still_frame(source, options=options, limits=limits)
    else:
        from .video_frames import video_frames

        yield from video_frames(source, options=options, limits=limits, alive=line.alive)


def _options(values: dict[str, Any]) -> FrameOptions:
    exact: dict[str, Any] = {
        name: Fraction(values[name]) for name in ("fps", "start_s", "end_s") if values[name] is not None
    }
    if values["wanted"] is not None:
        exact["wanted"] = tuple((stream, pts) for stream, pts in values["wanted"])
    return FrameOptions(**(values | exact))


def _message(frame: Frame | FrameError) -> tuple[dict[str, Any], bytes]:
    if isinstance(frame, FrameError):
        return {"type": "frame_error", "values": asdict(frame)}, b""
    values = {f.name: getattr(frame, f.name) for f in fields(frame) if f.name != "image"}
    return {"type": "frame", "values": values, "has_image": frame.image is not None}, frame.image or b""


def _bound(parent: int, memory_bytes: int) -> None:
    """Limits that hold whatever the media does, where the system has them."""
    # The worker, not this process, decides what an interrupt from the terminal means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        die_with(parent)


def die_with(parent: int) -> None:
    """Let Linux kill this process when the thread that has started it ends, be it with all of `parent`."""
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call
        os._exit(0)
