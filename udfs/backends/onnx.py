"""Backend `onnx`: a network as an ONNX file with a card beside it (see `udfs.cards`), run by onnxruntime."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._carded import CardedDetector, describe_file, find_weights
from .._errors import ModelError, first_line
from ..cards import Card, card_path, read_card
from ..detector_types import DetectOptions, ModelInfo

if TYPE_CHECKING:
    import onnxruntime
    import torch

IMPORTS = ("torchvision.ops",)  # onnxruntime starts threads
MAX_BYTES = 2**31
"""What one message of its format may have. Weights in files of their own are not read: they may lie anywhere."""
_INPUTS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


def describe(options: DetectOptions) -> ModelInfo:
    """The facts of card and file. Raises ModelError, also where onnxruntime is not installed."""
    return describe_file(*_files(options))


def load(options: DetectOptions) -> CardedDetector:
    """The network, on one thread: as many tasks run beside each other as there are cores."""
    import torch

    from .._device import find_batch_size

    torch.set_num_threads(1)
    path, card = _files(options)
    settings = describe(options).resolved(options)
    session, device = _session(path, options.device)
    card, network = _fitted(session, card, path)
    batch_size = find_batch_size(options.batch_size, device, most=card.input.max_batch)
    detector = CardedDetector(network, card, settings, device=torch.device("cpu"), batch_size=batch_size)
    detector.device_type = device
    return detector


def _files(options: DetectOptions) -> tuple[Path, Card]:
    if find_spec("onnxruntime") is None:
        raise ModelError("backend 'onnx' wants onnxruntime; install it with: pip install 'visionlake[onnx]'")
    path = find_weights(options, kind="an .onnx file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ModelError(f"weights {path} have {size} bytes; at most {MAX_BYTES} are allowed")
    return path, read_card(card_path(path))


def _session(path: Path, device: str) -> tuple[onnxruntime.InferenceSession, str]:
    """The file in onnxruntime, and the kind of device that it runs on."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    if device.startswith("cuda") and "CUDAExecutionProvider" not in there:
        raise ModelError(f"device = {device!r}, but onnxruntime has no CUDA here; allowed: 'auto', 'cpu'")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in there:
        number = int(device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number}))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what matters is raised
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
    except Exception as error:  # it has many kinds of its own
        raise ModelError(f"weights {path}: onnxruntime cannot load them: {first_line(error)}") from None
    return session, "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"


def _fitted(session: onnxruntime.InferenceSession, card: Card, path: Path) -> tuple[Card, Any]:
    """The card with the file's own batch, and the network as a function. Raises ModelError where they disagree."""
    import torch

    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise ModelError(f"weights {path} take {len(inputs)} inputs ({names}); a network with one is wanted")
    (given,) = inputs
    wanted = (3, card.input.height_px, card.input.width_px)
    shape = tuple(given.shape)
    fits = len(shape) == 4 and all(not isinstance(a, int) or a == b for a, b in zip(shape[1:], wanted, strict=True))
    if not fits or given.type not in _INPUTS:
        raise ModelError(
            f"weights {path} take {given.type} of {shape}; their card says (pictures, {', '.join(map(str, wanted))}), "
            f"and types may be {', '.join(_INPUTS)}"
        )
    batch = shape[0] if isinstance(shape[0], int) else None
    if batch and card.input.batch not in (None, batch):
        raise ModelError(f"weights {path} take {batch} pictures at a time; their card says {card.input.batch}")
    kind = _INPUTS[given.type]

    def network(pictures: torch.Tensor) -> Any:
        values = pictures.contiguous().numpy().astype(kind, copy=False)
        return tuple(torch.from_numpy(found) for found in session.run(None, {given.name: values}))

    fixed = card.input.model_copy(update={"batch": batch or card.input.batch})
    return card.model_copy(update={"input": fixed}), network
