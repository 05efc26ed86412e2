"""Films in files that Pillow reads: every kind of grey and colour, what damaged files say, and what reading costs."""

import contextlib
import errno
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from cxr_core.data import film_files
from cxr_core.data.film_files import film_size, films_in, read_film

# Wider than high, and no two corners alike: a film that is turned or mirrored is another film.
GREY = np.add.outer(np.arange(6) * 40, np.arange(9) * 6).astype(np.uint8)
DEEP = (GREY.astype(np.uint16) << 8) + 77
EXIF_ORIENTATION = 274


def save(folder: Path, film: Image.Image | np.ndarray, name: str = "film.png", **options: object) -> str:
    path = folder / name
    (film if isinstance(film, Image.Image) else Image.fromarray(film)).save(path, **options)
    return str(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG of 8-bit grey that ends where its pixels begin (PNG, third edition, 11.2)."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 99) + b"IDAT"


def refused(path: Path | str, reason: str) -> None:
    with pytest.raises((OSError, ValueError), match=reason):
        read_film(str(path))


# Grey and colour


@given(
    film=arrays.arrays(st.sampled_from([np.uint8, np.uint16]), st.tuples(st.integers(2, 9), st.integers(2, 9))).filter(
        lambda film: film.min() < film.max()
    ),
    suffix=st.sampled_from(["png", "tiff"]),
)
def test_any_grey_film_is_read_as_it_was_written(
    film: np.ndarray, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = save(tmp_path_factory.getbasetemp(), film, f"any.{suffix}")
    read = read_film(path)
    np.testing.assert_array_equal(read, film)
    assert read.dtype == film.dtype


@pytest.mark.parametrize("mode", ["LA", "RGB", "RGBA", "P", "PA"])
def test_grey_that_is_stored_as_colour_is_read_as_grey(mode: str, tmp_path: Path) -> None:
    name = "film.tiff" if mode == "PA" else "film.png"
    film = Image.fromarray(GREY)
    film = Image.merge("PA", (film.convert("P"), film)) if mode == "PA" else film.convert(mode)
    np.testing.assert_array_equal(read_film(save(tmp_path, film, name)), GREY)


def test_transparency_does_not_darken_a_film(tmp_path: Path) -> None:
    film = np.stack([GREY, GREY, GREY, GREY // 3], axis=-1)
    np.testing.assert_array_equal(read_film(save(tmp_path, film)), GREY)


def test_a_palette_with_transparent_entries_is_read_as_grey(tmp_path: Path) -> None:
    film = Image.fromarray(GREY).convert("P")
    np.testing.assert_array_equal(read_film(save(tmp_path, film, transparency=bytes(range(256)))), GREY)


def test_colour_becomes_its_luma(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    luma = colour @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    np.testing.assert_allclose(read_film(save(tmp_path, colour)), luma, atol=0.51)


@pytest.mark.parametrize("mode", ["1", "LA", "RGB", "RGBA", "P", "CMYK"])
def test_a_strict_reader_reads_grey_alike_however_it_is_stored(mode: str, tmp_path: Path) -> None:
    path = save(tmp_path, Image.fromarray(GREY).convert(mode), "film.tiff" if mode == "CMYK" else "film.png")
    np.testing.assert_array_equal(read_film(path, strict=True), read_film(path))


@pytest.mark.parametrize("name", ["film.png", "film.tiff", "film.jpg", "film.webp"])
def test_a_strict_reader_refuses_colours_that_another_reads(name: str, tmp_path: Path) -> None:
    colour = np.full((32, 32, 3), (90, 120, 60), np.uint8)
    colour[:16] += 40
    path = save(tmp_path, colour, name)
    assert read_film(path).shape == (32, 32)
    with pytest.raises(ValueError, match="a colour picture, no film: red, green and blue differ in 100% of its pixels"):
        read_film(path, strict=True)


@pytest.mark.parametrize(
    ("pixels", "tint", "is_film"), [(9_999, 16, True), (9_999, 17, False), (100, 255, True), (101, 255, False)]
)
def test_a_slight_tint_or_a_small_mark_is_no_colour(pixels: int, tint: int, is_film: bool, tmp_path: Path) -> None:
    film = np.zeros((100, 100, 3), np.uint8)
    film[-1, -1] = 200  # not blank
    film.reshape(-1, 3)[:pixels, 0] = tint
    path = save(tmp_path, film)
    if is_film:
        np.testing.assert_array_equal(read_film(path, strict=True), read_film(path))
    else:
        with pytest.raises(ValueError, match="a colour picture"):
            read_film(path, strict=True)


def test_a_strict_reader_refuses_several_pictures_in_a_file(tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    path = save(tmp_path, pages[0], "film.tiff", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_film(path), GREY)
    with pytest.raises(ValueError, match="2 pictures in one file"):
        read_film(path, strict=True)


def test_a_film_of_inks_is_read_with_its_paper_white(tmp_path: Path) -> None:
    inks = np.zeros((*GREY.shape, 4), np.uint8)
    inks[..., 3] = 255 - GREY
    path = save(tmp_path, Image.fromarray(inks, "CMYK"), "film.tiff")
    np.testing.assert_allclose(read_film(path), GREY, atol=1)


def test_a_film_of_single_bits_is_black_and_white(tmp_path: Path) -> None:
    bits = GREY > 99
    np.testing.assert_array_equal(read_film(save(tmp_path, bits)), bits * np.uint8(255))


def test_a_film_of_16_bits_is_the_same_in_both_byte_orders(tmp_path: Path) -> None:
    big = Image.frombytes("I;16B", (9, 6), DEEP.astype(">u2").tobytes())
    film = read_film(save(tmp_path, big, "film.tiff"))
    np.testing.assert_array_equal(film, DEEP)
    assert film.dtype == np.dtype(np.uint16)


@pytest.mark.parametrize("film", [GREY, DEEP])
def test_a_tiff_whose_white_is_zero_is_inverted(film: np.ndarray, tmp_path: Path) -> None:
    path = save(tmp_path, film, "film.tiff")
    raw = Path(path).read_bytes()
    tag = struct.pack("<HHI", 262, 3, 1)  # TIFF 6.0: PhotometricInterpretation, one short; 0 is WhiteIsZero
    assert raw.count(tag + struct.pack("<I", 1)) == 1
    Path(path).write_bytes(raw.replace(tag + struct.pack("<I", 1), tag + struct.pack("<I", 0)))
    np.testing.assert_array_equal(read_film(path), np.iinfo(film.dtype).max - film)


def test_32_bit_integers_within_16_bits_are_kept(tmp_path: Path) -> None:
    film = read_film(save(tmp_path, DEEP.astype(np.int32), "film.tiff"))
    np.testing.assert_array_equal(film, DEEP)
    assert film.dtype == np.uint16


@pytest.mark.parametrize("beyond", [-1, 65536])
def test_32_bit_integers_beyond_16_bits_are_refused(beyond: int, tmp_path: Path) -> None:
    film = DEEP.astype(np.int32)
    film[3, 4] = beyond
    refused(save(tmp_path, film, "film.tiff"), "do not fit into 16 bits")


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    refused(save(tmp_path, GREY.astype(np.float32), "film.tiff"), "floating-point")


@pytest.mark.parametrize("name", ["film.jpg", "film.png", "film.tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_film_that_was_turned_is_turned_back(orientation: int, name: str, tmp_path: Path) -> None:
    """The table of EXIF 2.3, 4.6.4: which side of the film the first row and the first column are."""
    upright = np.kron(GREY, np.ones((8, 8), np.uint8))  # JPEG keeps blocks of 8
    stored = {
        1: upright,  # top, left
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.T,  # left, top
        6: upright.T[::-1],  # right, top
        7: upright.T[::-1, ::-1],  # right, bottom
        8: upright.T[:, ::-1],  # left, bottom
    }[orientation]
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = save(tmp_path, np.ascontiguousarray(stored), name, exif=exif)
    np.testing.assert_allclose(read_film(path).astype(int), upright, atol=3)
    assert film_size(path) == upright.shape[::-1]


def test_a_film_that_pillow_holds_in_several_blocks_of_memory_is_read_whole(tmp_path: Path) -> None:
    film = np.random.default_rng(0).integers(0, 256, (4099, 4098), dtype=np.uint8)  # a block is 16 MiB
    np.testing.assert_array_equal(read_film(save(tmp_path, film, "film.tiff")), film)


def test_a_film_is_not_blank_for_a_middle_row_of_one_grey(tmp_path: Path) -> None:
    film = np.zeros((9, 8), np.uint8)
    film[0, 0] = 1
    np.testing.assert_array_equal(read_film(save(tmp_path, film)), film)


# Folders


def test_the_films_of_a_folder_are_known_by_their_names_or_the_mark_of_dicom(tmp_path: Path) -> None:
    films = ["a.png", "b.JPG", "below/c.jp2", "below/d.tif", "e.dcm", "f.DICOM", "g.pgm", "h", "1.2.840.7"]
    others = ["DICOMDIR", "films.csv", "empty", "below/Thumbs.db", "report.pdf"]
    hidden = [".a.png", ".below/a.png"]
    for name in films + others + hidden:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        marked = name in ("h", "1.2.840.7", "DICOMDIR", ".a.png")
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" if marked else b"")
    assert films_in(str(tmp_path)) == (sorted(str(tmp_path / name) for name in films), len(others))


def test_a_file_that_may_not_be_read_is_no_film_by_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "notes"):
        (tmp_path / name).write_bytes(b"")

    def forbidden(path: str, mode: str) -> None:  # a test that is root's may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr("cxr_core.data.film_files.open", forbidden, raising=False)
    assert films_in(str(tmp_path)) == ([str(tmp_path / "a.png")], 1)


def test_a_folder_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        films_in(str(tmp_path / "nowhere"))


# Damaged and useless files


@pytest.mark.parametrize("name", ["film.png", "film.jpg", "film.tiff", "film.bmp"])
def test_a_truncated_film_is_refused(name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = Path(save(tmp_path, noise, name))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "truncated|ended|end of|damaged")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.png").touch()
    refused(tmp_path / "film.png", "the file is empty")


def test_text_named_png_is_refused_with_how_it_begins(tmp_path: Path) -> None:
    (tmp_path / "film.png").write_text("404 Not Found")
    refused(tmp_path / "film.png", "neither PNG, .* it begins with b'404 Not Foun'")


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
def test_a_film_of_one_row_or_column_is_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    refused(save(tmp_path, np.arange(shape[0] * shape[1], dtype=np.uint8).reshape(shape)), "too small for a film")


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_a_film_without_pixels_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "film.png").write_bytes(png_header(*size))
    refused(tmp_path / "film.png", "too small|damaged")


@pytest.mark.parametrize(("film", "grey"), [(np.zeros((5, 5), np.uint8), 0), (np.full((5, 5), 999, np.uint16), 999)])
def test_a_blank_film_is_refused(film: np.ndarray, grey: int, tmp_path: Path) -> None:
    refused(save(tmp_path, film), f"^blank: every pixel is {grey}$")


def test_a_missing_film_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "film.png", "No such file")


@pytest.mark.parametrize("size", [(20_000, 10_000), (60_000, 60_000)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest puts back its own filters
def test_a_huge_film_is_refused_from_its_header(size: tuple[int, int], tmp_path: Path) -> None:
    """The file has no pixels: to say more than `truncated`, the header must have been enough."""
    (tmp_path / "film.png").write_bytes(png_header(*size))
    refused(tmp_path / "film.png", "too large")


@given(noise=st.binary(min_size=1, max_size=300), position=st.integers(0, 200))
def test_no_damage_raises_anything_but_the_two_errors_of_a_film(
    noise: bytes, position: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = Path(save(tmp_path_factory.getbasetemp(), GREY, "noisy.png"))
    raw = path.read_bytes()
    path.write_bytes(raw[:position] + noise + raw[position + len(noise) :])
    with contextlib.suppress(OSError, ValueError):
        assert read_film(str(path)).ndim == 2


# What reading costs


def alone(*lines: str) -> str:
    """What a process prints in which every warning is an error, and which imports nothing but the module."""
    load = f"import importlib.util as u; s = u.spec_from_file_location('film_files', {film_files.__file__!r})"
    start = [load, "films = u.module_from_spec(s); s.loader.exec_module(films)"]
    command = [sys.executable, "-W", "error", "-c", "\n".join([*start, *lines])]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_film_between_pillows_two_limits_is_read_without_a_warning(tmp_path: Path) -> None:
    film = Image.new("1", (10_000, 9_000))
    film.putpixel((7, 8), 1)
    path = save(tmp_path, film, compress_level=1)
    read = (
        "from concurrent.futures import ThreadPoolExecutor",
        f"with ThreadPoolExecutor(2) as pool: film = pool.submit(films.read_film, {path!r}).result()",
        "print(film.shape, film[8, 6:9])",
    )
    assert alone(*read) == "(9000, 10000) [  0 255   0]"


def test_pydicom_is_not_imported_for_a_png(tmp_path: Path) -> None:
    path = save(tmp_path, GREY)
    assert alone("import sys", f"print(films.read_film({path!r}).max(), 'pydicom' in sys.modules)") == "248 False"


def test_the_size_comes_from_the_header_alone(tmp_path: Path) -> None:
    (tmp_path / "film.png").write_bytes(png_header(31, 17))
    assert film_size(str(tmp_path / "film.png")) == (31, 17)


def test_films_are_read_by_many_threads_at_once(tmp_path: Path) -> None:
    films = [np.random.default_rng(n).integers(0, 256, (50 + n, 60), dtype=np.uint8) for n in range(20)]
    paths = [save(tmp_path, film, f"{n}.png") for n, film in enumerate(films)]
    with ThreadPoolExecutor(8) as pool:
        for film, read in zip(films * 5, pool.map(read_film, paths * 5), strict=True):
            np.testing.assert_array_equal(read, film)
