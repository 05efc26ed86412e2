"""Films in DICOM files: from stored values to the grey that a viewer shows (PS3.3 C.11.1, C.11.2)."""

import logging
from typing import Any, BinaryIO

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset

from cxr_core.data import gdcm_process
from cxr_core.data.film_files import check_grey, check_size

_GREY = {"MONOCHROME1", "MONOCHROME2"}
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_RADIOGRAPHY = {"CR", "DX", "DR", "RG", "RF", "XA", "OT"}
"""Modalities (PS3.3 C.7.3.1.1.1) in which chest films come; OT is what scanners of films write."""
_WHITE = 65535
# Decoders that damaged files do not bring down, where there are such.
_DECODERS = {
    uid.JPEGBaseline8Bit: "pillow",
    uid.JPEGExtended12Bit: "pillow",
    uid.JPEG2000: "pillow",
    uid.JPEG2000Lossless: "pillow",
    uid.RLELossless: "pydicom",
}
_GDCM_ALONE = {uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless}

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # what it logs on the way is in the fault that it raises


def read(file: BinaryIO, strict: bool = False) -> np.ndarray:
    """The film in an open DICOM file, (height, width) uint16 from black to white; uint8 if it is stored in colour.

    Stored values go through the modality LUT or rescaling, then the first VOI LUT or else the first window; without
    either, the range of the film is stretched. MONOCHROME1 is inverted; padding is black.
    strict: refuse colours that differ, and modalities that are no radiography.
    Raises ValueError for what is no film of one frame, and what pydicom raises on damaged files.
    """
    header = pydicom.dcmread(file, force=True)
    _check(header)
    if strict and (modality := header.get("Modality") or "OT") not in _RADIOGRAPHY:
        raise ValueError(f"its modality is {modality}, not radiography ({', '.join(sorted(_RADIOGRAPHY))})")
    stored = _stored(header, file.name)
    if header.PhotometricInterpretation in _COLOUR:
        colours = Image.fromarray(stored)
        if strict:
            check_grey(colours)
        return np.asarray(colours.convert("L"))
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    # The grey of each value that a pixel may store, instead of that of each pixel.
    codes = stored.view(f"u{stored.itemsize}")
    greys = _greys(header, np.arange(1 << 8 * stored.itemsize, dtype=codes.dtype).view(stored.dtype), codes)
    return np.asarray(greys[codes])


def size(file: BinaryIO) -> tuple[int, int]:
    """Width and height, in pixels, of the film in an open DICOM file. Raises as `read` does."""
    header = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    return _size(header)


def _size(header: Dataset) -> tuple[int, int]:
    if header.get("Rows") is None or header.get("Columns") is None:
        raise ValueError("not DICOM, or DICOM without a film: it states no Rows and Columns")
    width, height = int(header.Columns), int(header.Rows)
    check_size(width, height)
    return width, height


def _check(header: Dataset) -> None:
    _size(header)
    if "PixelData" not in header:
        raise ValueError("DICOM without integer pixels (no Pixel Data)")
    if (frames := int(header.get("NumberOfFrames") or 1)) != 1:
        raise ValueError(f"{frames} frames: not a film but a series")
    bits, kind = header.BitsAllocated, header.PhotometricInterpretation
    if kind not in _GREY | _COLOUR:
        raise ValueError(f"Photometric Interpretation {kind} is neither grey nor RGB")
    if bits not in ((8,) if kind in _COLOUR else (8, 16)):
        raise ValueError(f"{bits} bits allocated for a {kind} pixel")
    if "TransferSyntaxUID" not in header.file_meta:  # a file without preamble tells by its structure alone
        implicit, little = header.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit


def _stored(header: Dataset, path: str) -> np.ndarray:
    """Stored values of the film, colour as RGB."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _GDCM_ALONE:
        return gdcm_process.decode(path)
    # Of a damaged file with more frames than it states, too, one frame.
    header.pixel_array_options(index=0, decoding_plugin=_DECODERS.get(syntax, ""))
    return np.asarray(header.pixel_array)


def _greys(header: Dataset, stored: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Grey of every value that a pixel may store, uint16. codes: the film, as positions among these values."""
    padding = _padding(header, len(stored))
    with np.errstate(all="ignore"):  # absurd slopes and windows are refused below
        values = _modality(header, stored.astype(np.float64))
        share = _presented(header, values)
        if share is None:
            present = np.zeros(len(values), bool)
            present[codes] = True
            present[padding] = False
            share = _stretched(values, values[present])
    if not (np.isfinite(values).all() and np.isfinite(share).all()):
        raise ValueError("its rescaling or window is not made of numbers")
    if header.PhotometricInterpretation == "MONOCHROME1":
        share = 1 - share
    share[padding] = 0
    return np.asarray(np.rint(share * _WHITE), np.uint16)


def _padding(header: Dataset, count: int) -> np.ndarray:
    """Positions of the padding values among the `count` values that a pixel may store (PS3.3 C.7.5.1.1.2)."""
    if (first := header.get("PixelPaddingValue")) is None:
        return np.zeros(0, np.intp)
    last = header.get("PixelPaddingRangeLimit")
    ends = sorted((int(first), int(first if last is None else last)))
    # Modulo, because files state the padding of signed pixels as an unsigned number, too.
    return np.arange(ends[0], min(ends[1] + 1, ends[0] + count)) % count


def _modality(header: Dataset, stored: np.ndarray) -> np.ndarray:
    if tables := header.get("ModalityLUTSequence"):
        return _looked_up(tables[0], stored, header)[0]
    slope, intercept = _first(header, "RescaleSlope"), _first(header, "RescaleIntercept")
    return stored * (1.0 if slope is None else slope) + (intercept or 0.0)


def _presented(header: Dataset, values: np.ndarray) -> np.ndarray | None:
    """Values between black 0 and white 1 after the first VOI LUT or window; None without any (PS3.3 C.11.2.1)."""
    if tables := header.get("VOILUTSequence"):
        entries, white = _looked_up(tables[0], values, header)
        return np.clip(entries / white, 0, 1)
    center, width = _first(header, "WindowCenter"), _first(header, "WindowWidth")
    function = header.get("VOILUTFunction") or "LINEAR"
    # Some devices write windows of no width; viewers take them for none.
    if center is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    if function == "LINEAR":
        if width == 1:
            return (values > center - 0.5).astype(np.float64)
        return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if function == "SIGMOID":
        return 0.5 + 0.5 * np.tanh(2 * (values - center) / width)  # = 1 / (1 + exp(-4 ...)), without overflow
    raise ValueError(f"VOI LUT Function {function} is not in the standard")


def _stretched(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    low, high = (present.min(), present.max()) if len(present) else (0.0, 0.0)
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)


def _looked_up(table: Dataset, values: np.ndarray, header: Dataset) -> tuple[np.ndarray, int]:
    """Entries of a LUT for some values, and the largest that an entry may be (PS3.3 C.11.1.1)."""
    count, first, bits = (int(number) for number in table.LUTDescriptor)
    count = count or 1 << 16
    if first >= 1 << 15 and values.min() < 0:
        first -= 1 << 16  # a signed number, read as an unsigned one
    data: Any = table.LUTData
    if isinstance(data, bytes):
        order = "<" if header.original_encoding[1] else ">"
        data = np.frombuffer(data, "u1" if len(data) < 2 * count else f"{order}u2")
    entries = np.asarray(data, np.float64)
    if len(entries) < count:
        raise ValueError(f"a LUT of {count} entries has {len(entries)}")
    return entries[np.clip(np.rint(values) - first, 0, count - 1).astype(np.intp)], (1 << bits) - 1


def _first(header: Dataset, name: str) -> float | None:
    """The first of an attribute's numbers."""
    value = header.get(name)
    if isinstance(value, pydicom.multival.MultiValue):
        value = value[0] if len(value) else None
    return None if value is None or value == "" else float(value)
