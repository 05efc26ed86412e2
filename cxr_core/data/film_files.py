"""Films in files: PNG, JPEG, TIFF and the like through Pillow, DICOM through pydicom."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

# Without EPS and its like, for which Pillow starts other programs.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "JPEG2000", "WEBP", "GIF", "PPM")
_DICOM_SUFFIXES = {".dcm", ".dicom"}
_PREAMBLE = 128  # bytes before the mark "DICM", PS3.10 section 7.1
_MOST_PIXELS = 178_956_970
"""Pixels above which Pillow, too, takes a header for an attack on the memory."""
_TURNED_ASIDE = {5, 6, 7, 8}  # EXIF orientations that swap width and height
_PHOTOMETRIC, _MIN_IS_WHITE = 262, 0  # TIFF 6.0, PhotometricInterpretation
_GREY_MODES = {"1", "L", "LA", "La"}
_TINT, _TINTED_SHARE = 16, 0.01
"""By how much, of 255, the colours of a grey pixel may differ, as JPEG rounds them, and the share of pixels in which
they may differ more: a coloured mark on a film does not make a photograph of it."""
_READ_AHEAD = 2**19
"""Bytes: most films in one piece. PNGs come in chunks of 8 KiB, each of which would be a call to the system."""

# Set once, because filters set film by film would race between threads. That a file bends its standard, or has more
# than half of the pixels allowed, is no news if its film can be read, and part of the reason if it cannot.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"(PIL|pydicom)\.")


def read_film(path: str, strict: bool = False) -> np.ndarray:
    """The film in a file as (height, width), uint8 or uint16 over the type's whole range, black to white.

    Colour becomes its luma (ITU-R 601), transparency is dropped, an EXIF orientation is followed. DICOM is read as
    `dicom.read` says. May be called from many threads at once.
    strict: for a picture of which nobody has said that it is a film; refuse what shows that it is none (colours,
    several pictures in a file, another kind of examination). What is not refused is read alike.
    Raises OSError or ValueError, with the reason, if it cannot be read or is blank.
    """
    with _reasons(), open(path, "rb", _READ_AHEAD) as file:
        if _is_dicom(path, file):
            from cxr_core.data import dicom  # pydicom takes half a second, and most data sets have no DICOM

            film = dicom.read(file, strict)
        else:
            film = _read_image(file, strict)
    if _is_blank(film):  # blank films would pass for identical films of different patients
        raise ValueError(f"blank: every pixel is {film.min()}")
    return film


def film_size(path: str) -> tuple[int, int]:
    """Width and height, in pixels, of the film as `read_film` gives it, from the file's header alone.

    Raises OSError or ValueError, with the reason, if the header cannot be read.
    """
    with _reasons(), open(path, "rb") as file:
        if _is_dicom(path, file):
            from cxr_core.data import dicom

            return dicom.size(file)
        with _open_image(file) as image:
            width, height = image.size
            if image.format == "TIFF":  # Pillow has swapped the sides of these already
                return width, height
            aside = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in _TURNED_ASIDE
            return (height, width) if aside else (width, height)


def films_in(folder: str) -> tuple[list[str], int]:
    """Paths of the films in a folder and the folders below it, sorted, and how many other files there are.

    A film is known by the suffix of its name or by the mark of DICOM; hidden files and folders are not looked at.
    Raises OSError if a folder cannot be read.
    """
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in _FORMATS} | _DICOM_SUFFIXES
    films, others = [], 0
    for place, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (os.path.join(place, name) for name in names if not name.startswith(".")):
            if Path(path).suffix.lower() in suffixes or _has_dicom_mark(path):
                films.append(path)
            else:
                others += 1
    return sorted(films), others


def _raise(fault: OSError) -> None:
    raise fault


def _has_dicom_mark(path: str) -> bool:
    """Whether a file is DICOM, as films from archives are without a suffix; the index of a medium is no film."""
    if os.path.basename(path) == "DICOMDIR" or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"
    except OSError:  # somebody else's notes, perhaps
        return False


def check_grey(image: Image.Image) -> None:
    """Refuse a picture whose colours differ. Raises ValueError."""
    if image.mode in _GREY_MODES:
        return
    colours = np.asarray(image.convert("RGB"))
    tinted = float((colours.max(axis=-1) - colours.min(axis=-1) > _TINT).mean())
    if tinted > _TINTED_SHARE:
        raise ValueError(f"a colour picture, no film: red, green and blue differ in {tinted:.0%} of its pixels")


def check_size(width: int, height: int) -> None:
    """Refuse, before anything is decoded, a size that no film has. Raises ValueError."""
    if min(width, height) < 2:
        raise ValueError(f"{width} x {height} px is too small for a film")
    if width * height > _MOST_PIXELS:
        raise ValueError(f"{width} x {height} px is too large: at most {_MOST_PIXELS:,} pixels are decoded")


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn whatever a damaged file makes a library raise into a ValueError of one line."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except Exception as fault:
        reason = " ".join(str(fault).split())
        raise ValueError(reason if type(fault) is ValueError else f"{type(fault).__name__}: {reason}") from fault


def _is_dicom(path: str, file: BinaryIO) -> bool:
    head = file.read(_PREAMBLE + 4)
    file.seek(0)
    if not head:
        raise ValueError("the file is empty")
    return head[_PREAMBLE:] == b"DICM" or Path(path).suffix.lower() in _DICOM_SUFFIXES


def _open_image(file: BinaryIO) -> Image.Image:
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        file.seek(0)
        raise ValueError(
            f"neither {', '.join(_FORMATS)} nor DICOM, or damaged in its header; it begins with {file.read(12)!r}"
        ) from None
    except Image.DecompressionBombError as fault:
        raise ValueError(f"too large: {fault}") from None
    check_size(*image.size)
    return image


def _read_image(file: BinaryIO, strict: bool) -> np.ndarray:
    with _open_image(file) as image:
        if strict and (pictures := getattr(image, "n_frames", 1)) > 1:
            raise ValueError(f"{pictures} pictures in one file: which of them is the film is not known")
        inverted = image.format == "TIFF" and image.mode.startswith("I;16") and _min_is_white(image)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F":
            raise ValueError("pixels are floating-point numbers, whose black and white nobody has stated")
        if image.mode == "I":
            return _within_16_bits(np.asarray(image))
        if image.mode.startswith("I;16"):
            film = np.asarray(image).astype(np.uint16, copy=False)  # also to this machine's byte order
            return ~film if inverted else film
        image.info.pop("transparency", None)  # else Pillow looks for a grey that stands for it
        if strict:
            check_grey(image)
        return _pixels(image if image.mode == "L" else image.convert("L"))


def _pixels(image: Image.Image) -> np.ndarray:
    """The pixels of an 8-bit grey image, not copied where Pillow holds them in one block."""
    try:
        flat = pyarrow.array(image)
    except ValueError:
        return np.asarray(image)
    pixels: np.ndarray = flat.to_numpy().reshape(image.height, image.width)
    return pixels


def _is_blank(film: np.ndarray) -> bool:
    middle = film[len(film) // 2]  # tells of most films that they are not, at a thousandth of the cost
    return bool(middle.min() == middle.max() and film.min() == film.max())


def _min_is_white(image: Image.Image) -> bool:
    # Pillow inverts such films of 8 bits itself, but not those of 16.
    return bool(image.tag_v2.get(_PHOTOMETRIC) == _MIN_IS_WHITE)  # type: ignore[attr-defined]


def _within_16_bits(pixels: np.ndarray) -> np.ndarray:
    low, high = pixels.min(), pixels.max()
    if low < 0 or high > 65535:
        raise ValueError(f"pixels from {low} to {high} do not fit into 16 bits")
    return pixels.astype(np.uint16)
