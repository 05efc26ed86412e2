"""Films in DICOM files against the standard's formulas (PS3.3 C.11.1, C.11.2) and pydicom's own."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut

import cxr_core
from cxr_core.data import gdcm_process
from cxr_core.data.film_files import film_size, read_film
from tests.cxr_core.dicom_films import radiograph

WHITE = 65535
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
SIGNED = RAMP.astype(np.int16) - 2048
SYNTAXES = gdcm.TransferSyntax
# Written against the standard on purpose, in some tests; pytest puts back its own filters.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def written(header: Dataset, folder: Path, name: str = "film.dcm") -> str:
    header.save_as(folder / name, enforce_file_format=True)
    return str(folder / name)


def lut(entries: list[int], first: int, bits: int) -> Dataset:
    table = Dataset()
    table.LUTDescriptor = [len(entries), first, bits]
    table.LUTData = entries
    for name, kind in (("LUTDescriptor", "SS" if first < 0 else "US"), ("LUTData", "US")):
        table[name].VR = kind
    return table


def encoded(path: str, syntax: int) -> str:
    """The same film, compressed by gdcm."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(path)
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(path.replace(".dcm", f"_{syntax}.dcm"))
    assert writer.Write()
    return path.replace(".dcm", f"_{syntax}.dcm")


def refused(path: str | Path, reason: str) -> None:
    with pytest.raises((OSError, ValueError), match=reason):
        read_film(str(path))


# What a viewer shows


def linear(x: np.ndarray, c: float, w: float) -> np.ndarray:
    """C.11.2.1.2.1, value by value as the standard's pseudo-code has it."""
    middle = ((x - (c - 0.5)) / (w - 1) + 0.5) * WHITE
    return np.where(x <= c - 0.5 - (w - 1) / 2, 0, np.where(x > c - 0.5 + (w - 1) / 2, WHITE, middle))


def linear_exact(x: np.ndarray, c: float, w: float) -> np.ndarray:
    """C.11.2.1.3.2."""
    return np.where(x <= c - w / 2, 0, np.where(x > c + w / 2, WHITE, ((x - c) / w + 0.5) * WHITE))


def sigmoid(x: np.ndarray, c: float, w: float) -> np.ndarray:
    """C.11.2.1.3.1."""
    with np.errstate(over="ignore"):
        return WHITE / (1 + np.exp(-4 * (x - c) / w))


WINDOWS = {"LINEAR": linear, "LINEAR_EXACT": linear_exact, "SIGMOID": sigmoid}


@pytest.mark.parametrize("function", WINDOWS)
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000.5, 300), (0, 900), (4000, 2)])
def test_a_window_is_the_standards(function: str, center: float, width: float, tmp_path: Path) -> None:
    header = radiograph(
        RAMP, BitsStored=12, HighBit=11, WindowCenter=center, WindowWidth=width, VOILUTFunction=function
    )
    shown = WINDOWS[function](RAMP.astype(float), center, width)
    read = read_film(written(header, tmp_path))
    assert read.dtype == np.uint16
    np.testing.assert_allclose(read, shown, atol=0.501)


def test_a_window_without_a_function_is_linear(tmp_path: Path) -> None:
    header = radiograph(SIGNED, WindowCenter=40, WindowWidth=400)
    np.testing.assert_allclose(read_film(written(header, tmp_path)), linear(SIGNED.astype(float), 40, 400), atol=0.501)


def test_a_linear_window_of_width_1_is_a_threshold(tmp_path: Path) -> None:
    header = radiograph(RAMP, WindowCenter=40, WindowWidth=1)
    np.testing.assert_array_equal(read_film(written(header, tmp_path)), (RAMP > 39.5) * WHITE)


def test_of_several_windows_the_first_counts(tmp_path: Path) -> None:
    several = read_film(written(radiograph(RAMP, WindowCenter=[900, 5], WindowWidth=[80, 9]), tmp_path))
    np.testing.assert_array_equal(
        several, read_film(written(radiograph(RAMP, WindowCenter=900, WindowWidth=80), tmp_path))
    )


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 9, "WindowWidth": 0}, {"WindowCenter": "", "WindowWidth": ""}])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 3, "RescaleIntercept": -70}])
def test_without_a_window_the_films_range_is_stretched(window: dict, rescale: dict, tmp_path: Path) -> None:
    part = RAMP[10:40]
    shown = (part - 640.0) / (2559 - 640) * WHITE
    np.testing.assert_allclose(read_film(written(radiograph(part, **window, **rescale), tmp_path)), shown, atol=0.501)


def test_the_window_counts_in_rescaled_units(tmp_path: Path) -> None:
    header = radiograph(RAMP, RescaleSlope=0.5, RescaleIntercept=-1000, WindowCenter=-300, WindowWidth=700)
    np.testing.assert_allclose(read_film(written(header, tmp_path)), linear(RAMP * 0.5 - 1000, -300, 700), atol=0.501)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("first", [0, 100, -500])
def test_a_voi_lut_is_looked_up_and_scaled_to_its_bits(first: int, bits: int, tmp_path: Path) -> None:
    entries = [(n * 37 % 256) * ((1 << bits) - 1) // 255 for n in range(1500)]
    header = radiograph(SIGNED, VOILUTSequence=[lut(entries, first, bits)], WindowCenter=9, WindowWidth=99)
    position = np.clip(SIGNED.astype(int) - first, 0, 1499)
    shown = np.array(entries)[position] / ((1 << bits) - 1) * WHITE
    np.testing.assert_allclose(read_film(written(header, tmp_path)), shown, atol=0.501)


def test_the_modality_lut_comes_before_the_window(tmp_path: Path) -> None:
    entries = [4095 - n for n in range(4096)]
    header = radiograph(RAMP, ModalityLUTSequence=[lut(entries, 0, 16)], WindowCenter=1000, WindowWidth=800)
    np.testing.assert_allclose(read_film(written(header, tmp_path)), linear(4095.0 - RAMP, 1000, 800), atol=0.501)


@pytest.mark.parametrize("function", WINDOWS)
def test_pydicoms_own_look_up_shows_the_same(function: str, tmp_path: Path) -> None:
    entries = [n * n // 4096 for n in range(4096)]
    header = radiograph(RAMP, ModalityLUTSequence=[lut(entries, 0, 16)], WindowCenter=1000, WindowWidth=800)
    header.VOILUTFunction = function
    theirs = apply_voi_lut(apply_modality_lut(RAMP, header), header)
    np.testing.assert_allclose(read_film(written(header, tmp_path)), theirs, atol=1.001)


@given(
    pixels=st.sampled_from([np.uint8, np.int16, np.uint16]).flatmap(
        lambda kind: arrays.arrays(kind, st.tuples(st.integers(2, 6), st.integers(2, 6)))
    ),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    center=st.integers(-40_000, 70_000),
    width=st.integers(1, 70_000),
    bits=st.sampled_from([12, 16]),
)
def test_a_window_never_shows_a_larger_value_darker(
    pixels: np.ndarray,
    function: str,
    center: int,
    width: int,
    bits: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if pixels.itemsize == 2 and bits == 12:
        pixels = pixels >> 4
    stored = {"BitsStored": bits, "HighBit": bits - 1} if pixels.itemsize == 2 else {}
    window = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function}
    path = written(radiograph(pixels, **window, **stored), tmp_path_factory.getbasetemp())
    try:
        shown = read_film(path)
    except ValueError as fault:
        if "blank" not in str(fault):  # as it is if all of its pixels lie beside the window
            raise
        return
    assert (np.diff(shown.ravel()[np.argsort(pixels, axis=None)].astype(int)) >= 0).all()


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 9, "WindowWidth": 800}])
@pytest.mark.parametrize("pixels", [RAMP, SIGNED, (RAMP >> 4).astype(np.uint8)])
def test_monochrome1_is_inverted_monochrome2(pixels: np.ndarray, window: dict, tmp_path: Path) -> None:
    plain = read_film(written(radiograph(pixels, **window), tmp_path))
    inverted = read_film(written(radiograph(pixels, PhotometricInterpretation="MONOCHROME1", **window), tmp_path))
    np.testing.assert_array_equal(inverted, WHITE - plain)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("limits", "padded"), [((7, None), [7]), ((-3, 5), range(-3, 6)), ((5, -3), range(-3, 6))])
def test_padding_is_black_and_does_not_widen_the_range(
    kind: str, limits: tuple[int, int | None], padded: list[int], tmp_path: Path
) -> None:
    pixels = np.arange(100, 164, dtype=np.int16).reshape(8, 8)
    plain = read_film(written(radiograph(pixels, PhotometricInterpretation=kind), tmp_path))
    framed = np.full((10, 8), padded[0], np.int16)
    framed[1:9], framed[9] = pixels, padded[-1]
    header = radiograph(framed, PhotometricInterpretation=kind, PixelPaddingValue=limits[0])
    if limits[1] is not None:
        header.PixelPaddingRangeLimit = limits[1]
    read = read_film(written(header, tmp_path))
    np.testing.assert_array_equal(read[1:9], plain)
    assert not read[[0, 9]].any()


def test_bits_above_those_stored_are_no_pixels(tmp_path: Path) -> None:
    """Old devices keep an overlay there."""
    header = radiograph(RAMP | 0xA000, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_allclose(read_film(written(header, tmp_path)), linear(RAMP.astype(float), 2048, 4096), atol=0.501)


def test_a_secondary_capture_in_colour_is_read_as_pillow_reads_it(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    grey = np.asarray(Image.fromarray(colour).convert("L"))
    np.testing.assert_array_equal(read_film(written(radiograph(colour), tmp_path)), grey)


# How it is stored


@pytest.mark.parametrize("name", ["film.dcm", "film", "film.png"])
def test_dicom_is_known_by_its_content(name: str, tmp_path: Path) -> None:
    path = written(radiograph(RAMP), tmp_path, name)
    assert (read_film(path).shape, film_size(path)) == ((64, 64), (64, 64))


@pytest.mark.parametrize("name", ["film.dcm", "film.DCM", "film.dicom"])
@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_dicom_without_a_preamble_is_known_by_its_suffix(
    name: str, implicit: bool, little: bool, tmp_path: Path
) -> None:
    header = radiograph(RAMP if little else RAMP.astype(">u2"))
    del header.file_meta
    header.save_as(tmp_path / name, implicit_vr=implicit, little_endian=little)
    np.testing.assert_allclose(read_film(str(tmp_path / name)), RAMP / 4095 * WHITE, atol=0.501)
    assert film_size(str(tmp_path / name)) == (64, 64)


@pytest.mark.parametrize(
    "syntax",
    [
        SYNTAXES.JPEGLosslessProcess14,
        SYNTAXES.JPEGLosslessProcess14_1,
        SYNTAXES.JPEGLSLossless,
        SYNTAXES.JPEG2000Lossless,
        SYNTAXES.RLELossless,
    ],
)
@pytest.mark.parametrize("pixels", [RAMP, SIGNED, (RAMP >> 4).astype(np.uint8)])
def test_lossless_compression_changes_nothing(syntax: int, pixels: np.ndarray, tmp_path: Path) -> None:
    path = written(radiograph(pixels, WindowCenter=100, WindowWidth=3000), tmp_path)
    compressed = encoded(path, syntax)
    assert pydicom.dcmread(compressed).file_meta.TransferSyntaxUID != uid.ExplicitVRLittleEndian
    np.testing.assert_array_equal(read_film(compressed), read_film(path))


def test_jpeg_inside_dicom_is_read_as_the_same_jpeg_outside(tmp_path: Path) -> None:
    pixels = (np.add.outer(np.arange(40), np.arange(48)) * 2).astype(np.uint8)
    jpeg = BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG")
    (tmp_path / "film.jpg").write_bytes(jpeg.getvalue())
    header = radiograph(pixels, WindowCenter=127.5, WindowWidth=255, VOILUTFunction="LINEAR_EXACT")
    header.PixelData = encapsulate([jpeg.getvalue()])
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    np.testing.assert_array_equal(
        read_film(written(header, tmp_path)), read_film(str(tmp_path / "film.jpg")) * np.uint16(257)
    )


def test_lossless_films_are_read_by_many_threads_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plain = [written(radiograph(rng.integers(0, 999, (30 + n, 40), np.uint16)), tmp_path, f"{n}.dcm") for n in range(6)]
    compressed = [encoded(path, SYNTAXES.JPEGLosslessProcess14_1) for path in plain]
    with ThreadPoolExecutor(3) as pool:
        for path, read in zip(plain * 4, pool.map(read_film, compressed * 4), strict=True):
            np.testing.assert_array_equal(read, read_film(path))


# What is no film, and damaged films


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", "OT", "", None])
def test_a_strict_reader_reads_radiographs_alike(modality: str | None, tmp_path: Path) -> None:
    path = written(radiograph(RAMP, **({} if modality is None else {"Modality": modality})), tmp_path)
    np.testing.assert_array_equal(read_film(path, strict=True), read_film(path))


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "MG", "PT", "IO"])
def test_a_strict_reader_refuses_other_examinations(modality: str, tmp_path: Path) -> None:
    path = written(radiograph(RAMP, Modality=modality), tmp_path)
    assert read_film(path).shape == RAMP.shape
    with pytest.raises(ValueError, match=f"^its modality is {modality}, not radiography"):
        read_film(path, strict=True)


def test_a_strict_reader_refuses_colours_and_reads_grey_that_is_stored_as_colour(tmp_path: Path) -> None:
    grey = np.repeat(np.arange(64, dtype=np.uint8).reshape(8, 8, 1), 3, axis=2)
    path = written(radiograph(grey), tmp_path)
    np.testing.assert_array_equal(read_film(path, strict=True), grey[..., 0])
    path = written(radiograph(grey * np.array([3, 2, 1], np.uint8)), tmp_path)
    assert read_film(path).shape == (8, 8)
    with pytest.raises(ValueError, match="a colour picture, no film"):
        read_film(path, strict=True)


def test_a_huge_film_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    header = radiograph(RAMP, Rows=20_000, Columns=10_000)
    refused(written(header, tmp_path), "10000 x 20000 px is too large")


def test_a_blank_film_is_refused(tmp_path: Path) -> None:
    refused(written(radiograph(np.full((9, 9), 800, np.uint16)), tmp_path), "^blank: every pixel is 0$")


def test_a_series_is_refused_and_one_frame_is_a_film(tmp_path: Path) -> None:
    assert read_film(written(radiograph(RAMP, NumberOfFrames=1), tmp_path)).shape == (64, 64)
    refused(written(radiograph(RAMP, Rows=32, NumberOfFrames=2), tmp_path), "2 frames")


def test_a_report_is_refused(tmp_path: Path) -> None:
    header = radiograph(RAMP)
    del header.PixelData, header.Rows, header.Columns
    refused(written(header, tmp_path), "DICOM without a film")


def test_a_film_without_its_pixels_is_refused(tmp_path: Path) -> None:
    header = radiograph(RAMP)
    del header.PixelData
    refused(written(header, tmp_path), "no Pixel Data")


def test_a_palette_is_refused(tmp_path: Path) -> None:
    refused(written(radiograph(RAMP, PhotometricInterpretation="PALETTE COLOR"), tmp_path), "neither grey nor RGB")


@pytest.mark.parametrize("text", ["404 Not Found", "<html>" + "x" * 500])
def test_text_named_dcm_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "film.dcm").write_text(text)
    refused(tmp_path / "film.dcm", "^not DICOM, or DICOM without a film")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.dcm").touch()
    refused(tmp_path / "film.dcm", "the file is empty")


def test_a_window_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = Path(written(radiograph(RAMP, WindowCenter=9, WindowWidth="123456"), tmp_path))
    raw = path.read_bytes()
    assert raw.count(b"DS\x06\x00123456") == 1
    path.write_bytes(raw.replace(b"DS\x06\x00123456", b"DS\x06\x00wide! "))
    refused(path, "wide!")


@pytest.mark.parametrize("slope", ["nan", "inf", "1e308"])
def test_a_rescaling_beyond_all_numbers_is_refused(slope: str, tmp_path: Path) -> None:
    path = Path(written(radiograph(RAMP, RescaleIntercept=0, RescaleSlope="123456"), tmp_path))
    path.write_bytes(path.read_bytes().replace(b"DS\x06\x00123456", b"DS\x06\x00" + slope.ljust(6).encode()))
    refused(path, "not made of numbers")


def test_a_lut_that_is_too_short_is_refused(tmp_path: Path) -> None:
    table = lut(list(range(100)), 0, 16)
    table.LUTDescriptor = [400, 0, 16]
    refused(written(radiograph(RAMP, VOILUTSequence=[table]), tmp_path), "a LUT of 400 entries has 100")


@pytest.mark.parametrize(
    "syntax",
    [
        None,
        SYNTAXES.JPEGLosslessProcess14_1,
        SYNTAXES.JPEGLSLossless,
        SYNTAXES.JPEG2000Lossless,
        SYNTAXES.RLELossless,
        SYNTAXES.JPEGBaselineProcess1,
    ],
)
def test_no_damage_brings_the_process_down(syntax: int | None, tmp_path: Path) -> None:
    """In this process, gdcm aborted on one in three hundred such files; each must be refused or be a film."""
    path = written(radiograph((RAMP >> 4).astype(np.uint8)), tmp_path)
    raw = Path(path if syntax is None else encoded(path, syntax)).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = np.frombuffer(raw, np.uint8).copy()
        damaged[rng.integers(132, len(raw), rng.integers(1, 20))] = rng.integers(0, 256)
        end = len(raw) if rng.random() < 0.6 else rng.integers(132, len(raw))
        (tmp_path / "damaged.dcm").write_bytes(damaged[:end].tobytes())
        with contextlib.suppress(OSError, ValueError):
            assert read_film(str(tmp_path / "damaged.dcm")).ndim == 2


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The decoders that wait for films: none at first."""
    waiting: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(gdcm_process, "_idle", waiting)
    yield waiting
    for process in waiting:
        process.kill()
        with process:
            pass


def test_a_film_on_which_a_decoder_breaks_down_is_refused(
    decoders: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = tmp_path / "crash.py"
    crash.write_text("import os\ninput()\nos.abort()")
    monkeypatch.setattr(gdcm_process, "__file__", str(crash))
    path = encoded(written(radiograph(RAMP), tmp_path), SYNTAXES.JPEGLosslessProcess14_1)
    refused(path, r"^gdcm broke down on it \(status -6\): the file is damaged$")
    assert not decoders


def test_a_decoder_that_died_while_it_waited_costs_no_film(
    decoders: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    path = encoded(written(radiograph(RAMP), tmp_path), SYNTAXES.JPEGLosslessProcess14_1)
    intact = read_film(path)
    dead = decoders[0]
    dead.kill()
    np.testing.assert_array_equal(read_film(path), intact)
    assert dead.returncode == -9
    assert dead not in decoders


def test_a_decoder_serves_one_film_after_the_other(decoders: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    path = encoded(written(radiograph(RAMP), tmp_path), SYNTAXES.JPEGLosslessProcess14_1)
    used = {(read_film(path).shape, decoders[0].pid) for _ in range(3)}
    assert (len(used), len(decoders)) == (1, 1)


def test_a_decoder_that_does_not_answer_is_given_up(
    decoders: list[subprocess.Popen[bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = tmp_path / "stuck.py"
    stuck.write_text("import time\ntime.sleep(60)")
    monkeypatch.setattr(gdcm_process, "__file__", str(stuck))
    monkeypatch.setattr(gdcm_process, "_PATIENCE", 0.2)
    refused(encoded(written(radiograph(RAMP), tmp_path), SYNTAXES.JPEGLSLossless), r"\(status -9\): no answer in time")


def test_pydicoms_warnings_do_not_leave_the_reader(tmp_path: Path) -> None:
    """In a process whose warnings are errors: a film of more pixels than it states."""
    path = written(radiograph(RAMP, Rows=63), tmp_path)
    with pytest.warns(UserWarning, match="excess padding"):
        assert pydicom.dcmread(path).pixel_array.shape == (63, 64)
    script = f"from cxr_core.data.film_files import read_film; print(read_film({path!r}).shape)"
    command = [sys.executable, "-W", "error::UserWarning", "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(cxr_core.__path__[0]).parent)
    assert (ran.stdout, ran.stderr) == ("(63, 64)\n", "")
