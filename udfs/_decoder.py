"""The worker's side of the decoder process: one child a worker, kept while there is work, replaced when it fails."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from fractions import Fraction
from typing import IO, Any, BinaryIO, Literal, Self

from ._decoder_wire import Message, pack, unpack
from ._errors import MediaError
from .frame_types import Frame, FrameError, FrameOptions, Limits
from .uris import display, local_path, open_input

# Decoding 89 million pixels needs a few copies of a picture at a time, of up to four bytes a pixel.
_BYTES_PER_PIXEL = 12
_START = (
    "import sys, json; parent, memory, path = json.loads(sys.argv[1]); sys.path[:] = path; "
    "from visionlake.udfs._decoder_child import main; main(parent, memory)"
)
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Every arena of malloc reserves 64 MiB of the address space that is bounded here.
    "MALLOC_ARENA_MAX": "2",
    # Keep what pictures are made in: to give it back and fault it in again doubles the time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}
_STDERR_TAIL_BYTES = 2000
_CLOSE_S = 2.0
IDLE_S = 5.0
"""A child that has waited for so long ends: the worker has other work, and it holds up to 100 MiB."""

_kept: dict[tuple[int, Limits], Decoder] = {}


class Decoder:
    """Decodes media in a child process with limits on memory, time and pixels. A context manager; not for threads.

    The limit on memory is one on address space, which only Linux keeps; elsewhere time and pixels alone are bounded.
    Every failure is a MediaError: what the decoding functions raise, and decoder_timeout, decoder_memory,
    decoder_crashed, decoder_failed, read_failed. After any of them the decoder serves the next request.
    """

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._children: list[_Child] = []
        self._lock = threading.RLock()  # between callers and the thread that ends idle children
        self._is_watched = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def child_pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return self._children[-1].process.pid if self._children else None

    def close(self) -> None:
        """End the child."""
        with self._lock:
            children, self._children = self._children, []
        for child in children:
            child.close()

    def probe(self, uri: str, *, size_bytes: int, keep_position: bool = False) -> dict[str, Any]:
        """What `probe_media` says of a file of `size_bytes`."""
        return self._value({"type": "probe", "keep_position": keep_position}, uri, size_bytes)

    def times(self, uri: str) -> tuple[int, list[int]]:
        """What `frame_times.displayed_times` says of a video."""
        stream_index, times = self._value({"type": "times"}, uri, None)
        return stream_index, times

    def _value(self, request: dict[str, Any], uri: str, size_bytes: int | None) -> Any:
        with closing(self._exchange(request, uri, size_bytes)) as answers:
            values = [header["value"] for header, _ in answers]
        return values[0]

    def frames(
        self, uri: str, *, kind: Literal["video", "image"], options: FrameOptions
    ) -> Generator[Frame | FrameError, None, None]:
        """What `video_frames` or `still_frame` yields; an error is raised after the frames before it."""
        values = {name: str(value) if isinstance(value, Fraction) else value for name, value in asdict(options).items()}
        request = {"type": "frames", "kind": kind, "options": values}
        last: Frame | None = None
        try:
            with closing(self._exchange(request, uri, None)) as answers:
                for header, body in answers:
                    if header["type"] == "frame_error":
                        yield FrameError(**header["values"])
                    else:
                        last = Frame(**header["values"], image=body if header["has_image"] else None)
                        yield last
        except MediaError as error:
            if last is None or not error.reason.startswith("decoder_"):
                raise
            where = f"after the frame of stream {last.stream_index} at {last.pts_s:.3f} s (pts {last.pts})"
            raise MediaError(error.reason, f"{error.message}; {where}", error.payload) from error

    def _exchange(self, request: dict[str, Any], uri: str, size_bytes: int | None) -> Generator[Message, None, None]:
        """Send a request and yield its answers, serving the child's reads meanwhile."""
        path = local_path(uri)
        with closing(_RemoteInput(uri)) as remote:
            try:
                request |= {
                    "path": os.fsencode(path).hex() if path is not None else None,
                    "size_bytes": remote.size() if path is None else size_bytes,
                    "limits": asdict(self.limits),
                }
                yield from self._answers(self._idle_child(), request, remote)
            except OSError as error:
                raise MediaError("read_failed", f"{display(uri)}: {error}") from error

    def _idle_child(self) -> _Child:
        """A child that waits for work; another one while a caller has not read an earlier answer to its end."""
        with self._lock:
            for child in list(self._children):
                if child.process.poll() is not None:
                    self._discard(child)
                elif not child.is_busy:
                    child.is_busy = True
                    return child
            child = _Child(self.limits)
            self._children.append(child)
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._end_idle, name="idle decoders", daemon=True).start()
            return child

    def _end_idle(self) -> None:
        while True:
            time.sleep(IDLE_S / 5)
            with self._lock:
                now = time.monotonic()
                idle = [child for child in self._children if not child.is_busy and now - child.idle_since_s > IDLE_S]
                self._children = [child for child in self._children if child not in idle]
                self._is_watched = is_needed = bool(self._children)
            for child in idle:
                child.close()
            if not is_needed:  # a caller may have started the next of these threads by now
                return

    def _discard(self, child: _Child) -> None:
        child.kill()
        with self._lock:
            if child in self._children:
                self._children.remove(child)

    def _answers(self, child: _Child, request: dict[str, Any], remote: _RemoteInput) -> Iterator[Message]:
        finished = False
        try:
            child.begin(request)
            while True:
                header, body = child.receive()
                if header["type"] == "read":
                    child.send(*remote.answer(header["offset"], header["size"]))
                elif header["type"] == "error":
                    finished = header["reason"] != "decoder_memory"
                    raise self._error(header, remote)
                elif header["type"] == "done":
                    finished = True
                    return
                elif header["type"] != "alive":
                    yield header, body
        finally:
            # After a failure, or when the caller has lost interest, the child is somewhere in the midst of things.
            if not finished:
                self._discard(child)
            child.idle_since_s = time.monotonic()
            child.is_busy = False

    def _error(self, header: dict[str, Any], remote: _RemoteInput) -> MediaError:
        if remote.error is not None:  # the decoder may have taken it for the end of the file
            return MediaError("read_failed", str(remote.error))
        if header["reason"] == "decoder_memory":
            return MediaError(
                "decoder_memory",
                f"the decoder needs more than memory_mib = {self.limits.memory_mib} beside max_pixels = "
                f"{self.limits.max_pixels} pixels",
            )
        return MediaError(header["reason"], header["message"], header["payload"])


def kept_decoder(limits: Limits) -> Decoder:
    """The process's decoder, kept between batches and tasks: to start a child costs more than to read most media."""
    key = (os.getpid(), limits)
    if key not in _kept:
        _kept[key] = Decoder(limits=limits)
        atexit.register(_kept[key].close)
    return _kept[key]


class _Child:
    """The child process and the line to it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        memory_bytes = (limits.memory_mib << 20) + _BYTES_PER_PIXEL * limits.max_pixels
        # An empty entry is the working directory, where a foreign folder could bear our names.
        start = json.dumps([os.getpid(), memory_bytes, [entry for entry in sys.path if entry]])
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START, start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=os.environ | _ENVIRONMENT,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._input, self._output = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)
        self._buffer = bytearray()
        self._waited_s = 0.0
        self.is_busy = True
        self.idle_since_s = time.monotonic()

    def begin(self, request: dict[str, Any]) -> None:
        """Send a request; the time for one media starts now."""
        self._waited_s = 0.0
        self.send(request)

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        """Send a message. Raises MediaError when the child does not take it."""
        for piece in pack(header, body):
            view = memoryview(piece)
            while view:
                self._wait(self._input, select.POLLOUT)
                try:
                    view = view[os.write(self._input, view) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise self._crash() from None

    def receive(self) -> Message:
        """The child's next message. Raises MediaError when it dies, hangs or sends what is no message."""
        try:
            message = unpack(self._read)
        except ValueError as error:
            raise MediaError("decoder_crashed", f"the decoder sent {error}") from error
        if message is None:
            raise self._crash()
        return message

    def close(self) -> None:
        """Let the child end by itself, or make it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_CLOSE_S)
        self.kill()

    def kill(self) -> None:
        """End the child at once."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self._stderr):
            if pipe is not None:
                pipe.close()

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._wait(self._output, select.POLLIN)
            try:
                block = os.read(self._output, 1 << 20)
            except BlockingIOError:
                continue
            if not block:
                break
            self._buffer += block
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _wait(self, descriptor: int, event: int) -> None:
        """Wait until the child can go on. Time that the worker spends elsewhere does not count."""
        poll = select.poll()
        poll.register(descriptor, event)
        left_s = min(self.limits.stall_s, self.limits.wall_s - self._waited_s)
        started = time.monotonic()
        ready = poll.poll(max(0.0, left_s) * 1000)
        self._waited_s += time.monotonic() - started
        if ready:
            return
        if self._waited_s >= self.limits.wall_s:
            raise MediaError("decoder_timeout", f"decoding takes longer than wall_s = {self.limits.wall_s:g}")
        raise MediaError("decoder_timeout", f"the decoder gave no answer for stall_s = {self.limits.stall_s:g}")

    def _crash(self) -> MediaError:
        try:
            code = self.process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            return MediaError("decoder_crashed", "the decoder closed its line")
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - _STDERR_TAIL_BYTES))
        said = self._stderr.read().decode(errors="backslashreplace").strip()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return MediaError("decoder_crashed", f"the decoder {how}", json.dumps({"stderr": said}) if said else None)


class _RemoteInput:
    """A file in another store, opened when the child first asks for it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._file: BinaryIO | None = None
        self.error: OSError | None = None

    def size(self) -> int:
        """Length in bytes."""
        return self._opened().seek(0, os.SEEK_END)

    def answer(self, offset: int, size: int) -> tuple[dict[str, Any], bytes]:
        """The message that carries the bytes asked for."""
        try:
            file = self._opened()
            file.seek(offset)
            return {"type": "data"}, file.read(size)
        except OSError as error:
            self.error = error
            return {"type": "data", "error": str(error)}, b""

    def close(self) -> None:
        """Close the file, if it was opened."""
        if self._file is not None:
            self._file.close()

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = open_input(self._uri)
        return self._file
