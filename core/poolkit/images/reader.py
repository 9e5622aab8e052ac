"""Turns images into what a model reads of them, by its own processor, and says what it puts around a text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from poolkit.contract import ModalityInput, ModelInfo, TokenIds
from poolkit.errors import ModelError, RequestError
from poolkit.images.families import ImageSpec
from poolkit.images.prompt import ImagePrompt

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import ColPaliProcessor

    _Processor: TypeAlias = ColPaliProcessor
    """Or another of its kind, or no more than an image processor: transformers has no common type for them."""

__all__ = ["ImageReader"]

MAX_PIXELS = 2**26
"""An image with more is refused before it is decoded: a file of a few kilobytes may hold gigabytes. A page of A2 at 300
dpi has half of these."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow knows more, some of which it has other programs decode (EPS)."""

CHANNELS = 3

PIXELS = "pixel_values"
NOT_SEEN = ("attention_mask", "labels")
"""Further results of processors that are left out: nothing is padded, and labels are for training."""

PROBE = "a"
FILLERS = 10
"""The number of tokens without a meaning that follow a query: a default inside each processor's `__call__`."""


class ImageReader:
    """Reads images with transformers' processor for the model. Used from many threads at a time.

    Attributes:
        query_frame: what stands before and after a text that images are searched with; None where nothing does.

    Raises ModelError where Pillow is missing, or the processor's files are.
    """

    def __init__(self, info: ModelInfo) -> None:
        spec = info.modalities[ImagePrompt.modality]
        assert isinstance(spec, ImageSpec)
        self._name = info.name
        self._patch_area = CHANNELS * spec.patch_size**2
        self._processor = _load_processor(info, spec)
        # A tokenizer says nothing about threads, and these processors have one.
        self._lock = Lock() if spec.is_retriever else nullcontext()
        self.query_frame = _query_frame(self._processor, spec) if spec.is_retriever else None

    def read(self, image: ImagePrompt, /) -> tuple[TokenIds, ModalityInput]:
        """Return the placeholder tokens of an image, none where the model has none, and what the model sees of it.

        Raises RequestError where the image cannot be read, is too large, or the processor refuses it.
        """
        picture = _decode(image)
        process = getattr(self._processor, "process_images", self._processor)
        try:
            with self._lock:
                processed = process(images=[picture], return_tensors="pt")
        except ValueError as exc:
            width, height = picture.size
            raise RequestError(
                f"the image processor of {self._name} refuses an image of {width} x {height} pixels. Send one of "
                "another shape"
            ) from exc
        found = {name: tensor.numpy() for name, tensor in processed.items()}
        [token_ids] = found.pop("input_ids").astype(np.int32) if "input_ids" in found else np.empty((1, 0), np.int32)
        arrays = {name: array for name, array in found.items() if name not in NOT_SEEN}
        return token_ids, ModalityInput(ImagePrompt.modality, arrays, cost=arrays[PIXELS].size // self._patch_area)


def _load_processor(info: ModelInfo, spec: ImageSpec) -> _Processor:
    try:
        import PIL  # noqa: F401
        from transformers import AutoImageProcessor, AutoProcessor
    except ImportError as exc:
        raise ModelError(
            f"{info.name} reads images, which Pillow decodes. Run: python -m pip install 'poolkit[images]'"
        ) from exc
    kind: Any = AutoProcessor if spec.is_retriever else AutoImageProcessor
    try:
        return cast("_Processor", kind.from_pretrained(info.path, trust_remote_code=info.config.trust_remote_code))
    except (OSError, ValueError, ImportError) as exc:
        raise ModelError(
            f"transformers cannot load the image processor of {info.name} from {info.path}: {exc}"
        ) from exc


def _query_frame(processor: _Processor, spec: ImageSpec) -> tuple[str, str]:
    """Return what the processor puts around a query: https://huggingface.co/papers/2407.01449, section 4.1."""
    tokenizer = processor.tokenizer
    bare, whole = (tokenizer(PROBE, add_special_tokens=adds)["input_ids"] for adds in (False, True))
    start = next(place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    first, last = ("".join(tokenizer.convert_ids_to_tokens(ids)) for ids in (whole[:start], whole[start + len(bare) :]))
    if spec.repeats_bos:
        first += tokenizer.bos_token
    if spec.ends_in_newline:
        last = f"\n{last}"
    return f"{first}{processor.query_prefix}", f"{FILLERS * processor.query_augmentation_token}{last}"


def _decode(image: ImagePrompt) -> Image:
    """Return the image in RGB. Its size is in its first bytes, and is looked at before the others are decoded."""
    from PIL import Image

    with _clear_about_damage():
        opened = Image.open(BytesIO(image.data), formats=FORMATS)
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise RequestError(
            f"it is an image of {width} x {height} pixels, more than the {MAX_PIXELS} that are decoded. Send a smaller "
            "one"
        )
    with _clear_about_damage():
        return opened.convert("RGB")


@contextmanager
def _clear_about_damage() -> Iterator[None]:
    from PIL.Image import DecompressionBombError

    try:
        yield
    except DecompressionBombError as exc:
        raise RequestError(f"it is an image of more than the {MAX_PIXELS} pixels that are decoded") from exc
    except (OSError, ValueError, SyntaxError) as exc:  # what Pillow's decoders raise
        raise RequestError(
            f"it cannot be read as an image: it is damaged, or its format is none of {', '.join(FORMATS)}"
        ) from exc
