"""Films are decoded and resized once, copied from other caches, and decoded again when they have changed."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
import pytest

from cxr_core.data import DataError, Source, build_cache, open_cache
from cxr_core.data.cache import cache_facts, cache_root, unreadable_films
from cxr_core.data.cache.resize import resize
from cxr_core.data.data_sets.nih import Nih

HALF = 0.5 + 1e-3  # grey levels: one rounding


class Folder(Source):
    """Films by name out of a dictionary; a film may be an exception that reading it raises."""

    kind = "folder"
    labels = ("Mass",)

    def __init__(self, films: dict[str, np.ndarray | Exception]):
        self.content, self.stamps, self.read_films = films, dict.fromkeys(films, "1"), []
        self.films = pd.DataFrame({"image": list(films), "patient": list(films), "split": None})

    @property
    def names(self) -> list[str]:
        return list(self.content)

    def read(self, image: str) -> np.ndarray:
        self.read_films.append(image)
        if isinstance(self.content[image], Exception):
            raise self.content[image]
        return self.content[image]

    def stamp(self, image: str) -> str:
        return self.stamps[image]


@pytest.fixture
def source() -> Folder:
    return Folder({f"{row}.png": noise(row) for row in range(200)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)


def holds(folder: Path, source: Folder, names: list[str], size: int = 8) -> bool:
    """Whether a cache holds these films, in this order, as they are read now."""
    images, manifest = open_cache(folder)
    expected = [resize(source.content[name], size) for name in names]
    return list(manifest["image"]) == names and np.array_equal(images, expected)


def open_caches(root: Path) -> list[Path]:
    """Folders that a later run would take for a cache."""
    return [path for path in root.iterdir() if path.is_dir() and path.suffix != ".partial"]


# What is in it


def test_a_cache_holds_the_films_in_the_order_of_their_names(source: Folder, root: Path) -> None:
    names = source.names[::-1]
    folder = build_cache(source, names, 8, root=root)
    assert open_cache(folder)[0].shape == (200, 8, 8)
    assert holds(folder, source, names)


def test_a_manifest_gives_each_film_its_stamp_and_a_hash_that_identical_films_share(source: Folder, root: Path) -> None:
    source.content["3.png"], source.stamps["3.png"] = source.content["5.png"].copy(), "2"
    _, manifest = open_cache(build_cache(source, source.names, 8, root=root))
    assert list(manifest.columns) == ["image", "stamp", "pixels"]
    assert manifest["stamp"].tolist() == [source.stamps[name] for name in source.names]
    assert manifest["pixels"][3] == manifest["pixels"][5]
    assert manifest["pixels"].nunique() == 199


def test_a_cache_holds_only_the_films_given(source: Folder, root: Path) -> None:
    kept = source.names[::2]
    assert holds(build_cache(source, kept, 8, root=root), source, kept)
    assert set(source.read_films) == set(kept)


def test_the_films_of_a_cache_cannot_be_changed(source: Folder, root: Path) -> None:
    images, _ = open_cache(build_cache(source, source.names, 8, root=root))
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0


def test_a_cache_says_how_its_films_were_made(source: Folder, root: Path) -> None:
    facts = cache_facts(build_cache(source, source.names, 8, "pad", root))
    assert (facts.kind, facts.image_size, facts.aspect, facts.films) == ("folder", 8, "pad", 200)
    assert (facts.pillow, facts.numpy) == (PIL.__version__, np.__version__)


def test_real_films_are_cached_as_they_are_read(real_data: Path) -> None:
    source = Nih(str(real_data / "nih_1024"))
    folder = build_cache(source, list(source.films["image"]), 256)
    images, manifest = open_cache(folder)
    assert len(images) == 96
    assert unreadable_films(folder).empty
    for row in (0, 50, 95):
        blocks = source.read(manifest["image"][row]).reshape(256, 4, 256, 4).mean(axis=(1, 3))
        np.testing.assert_allclose(images[row], blocks, atol=HALF)


def test_the_root_is_the_one_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    monkeypatch.delenv("CXR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "cxr-search" / "films"


def test_each_film_is_told_as_it_is_done(source: Folder, root: Path) -> None:
    told: list[tuple[int, int]] = []
    build_cache(source, source.names, 8, root=root, on_film=lambda done, total: told.append((done, total)))
    assert told == [(done, 200) for done in range(201)]


def test_no_more_than_a_few_films_wait_in_memory_to_be_written(source: Folder, root: Path) -> None:
    ahead = []
    build_cache(source, source.names, 8, root=root, on_film=lambda done, _: ahead.append(len(source.read_films) - done))
    assert max(ahead) <= 16 * len(os.sched_getaffinity(0)) + 1


# Reused or made anew


def test_a_cache_that_exists_is_used_without_reading_a_film(source: Folder, root: Path) -> None:
    folder = build_cache(source, source.names, 8, root=root)
    source.read_films.clear()
    assert build_cache(source, source.names, 8, root=root) == folder
    assert source.read_films == []


def test_other_labels_and_splits_of_the_same_films_use_the_same_cache(source: Folder, root: Path) -> None:
    folder = build_cache(source, source.names, 8, root=root)
    source.films = source.films.assign(split="train", Mass=1.0)
    assert build_cache(source, source.names, 8, root=root) == folder


def test_a_film_whose_stamp_changed_is_read_again(source: Folder, root: Path) -> None:
    old = build_cache(source, source.names, 8, root=root)
    source.content["3.png"], source.stamps["3.png"] = np.full((16, 16), 77, np.uint8), "2"
    new = build_cache(source, source.names, 8, root=root)
    assert new != old
    assert (open_cache(new)[0][3] == 77).all()


@pytest.mark.parametrize("other", [slice(150), slice(None, None, -1)], ids=["fewer films", "another order"])
def test_other_films_have_a_cache_of_their_own(source: Folder, root: Path, other: slice) -> None:
    folder = build_cache(source, source.names, 8, root=root)
    changed = build_cache(source, source.names[other], 8, root=root)
    assert changed != folder
    assert holds(changed, source, source.names[other])


def test_another_size_has_a_cache_of_its_own(source: Folder, root: Path) -> None:
    build_cache(source, source.names, 8, root=root)
    assert open_cache(build_cache(source, source.names, 4, root=root))[0].shape == (200, 4, 4)


def test_another_aspect_has_a_cache_of_its_own(source: Folder, root: Path) -> None:
    source.content = {name: film[:8] for name, film in source.content.items()}
    build_cache(source, source.names, 8, root=root)
    padded, _ = open_cache(build_cache(source, source.names, 8, "pad", root))
    np.testing.assert_array_equal(padded[7], resize(source.content["7.png"], 8, "pad"))
    assert not padded[:, :2].any()


# Copied from another cache


COMPARED = 16  # films decoded again before the others are believed


def test_a_data_set_that_grew_decodes_only_its_new_films(source: Folder, root: Path) -> None:
    build_cache(source, source.names, 8, root=root)
    source.content |= {f"{row}.png": noise(row) for row in range(200, 230)}
    source.stamps = dict.fromkeys(source.content, "1")
    source.read_films.clear()
    assert holds(build_cache(source, source.names, 8, root=root), source, source.names)
    again = [name for name in source.read_films if int(name[:-4]) < 200]
    assert len(again) <= COMPARED
    assert len(source.read_films) - len(again) == 30


def test_another_split_decodes_no_film_that_one_of_two_caches_holds(source: Folder, root: Path) -> None:
    build_cache(source, source.names[:120], 8, root=root)
    build_cache(source, source.names[120:], 8, root=root)
    source.read_films.clear()
    mixed = source.names[::3] + source.names[1::3]
    assert holds(build_cache(source, mixed, 8, root=root), source, mixed)
    assert len(source.read_films) <= 2 * COMPARED


@pytest.mark.parametrize("change", ["stamp", "size", "aspect", "kind"])
def test_films_that_may_differ_are_decoded(source: Folder, root: Path, change: str) -> None:
    build_cache(source, source.names[:150], 8, root=root)
    source.read_films.clear()
    if change == "stamp":
        source.stamps = dict.fromkeys(source.content, "2")
    if change == "kind":
        source.kind = "other"
    build_cache(source, source.names, 4 if change == "size" else 8, "crop" if change == "aspect" else "squash", root)
    assert sorted(source.read_films) == sorted(source.names)


def test_other_pixels_under_the_same_names_and_stamps_are_not_copied(source: Folder, root: Path) -> None:
    """As in two copies of a data set whose archives set all times alike, with uncompressed films."""
    build_cache(source, source.names[:150], 8, root=root)
    source.content = {name: 255 - film for name, film in source.content.items()}
    assert holds(build_cache(source, source.names, 8, root=root), source, source.names)


@pytest.mark.parametrize("name", ["images.npy", "manifest.parquet", "cache.json"])
def test_a_damaged_cache_is_not_copied_from(source: Folder, root: Path, name: str) -> None:
    damaged = build_cache(source, source.names[:150], 8, root=root) / name
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert holds(build_cache(source, source.names, 8, root=root), source, source.names)


def test_a_film_whose_cached_pixels_rotted_is_decoded(source: Folder, root: Path) -> None:
    pixels = build_cache(source, source.names[:150], 8, root=root) / "images.npy"
    content = bytearray(pixels.read_bytes())
    content[128 + 5 * 64] ^= 1  # the sixth film of 64 pixels, behind the header
    pixels.write_bytes(content)
    assert holds(build_cache(source, source.names, 8, root=root), source, source.names)


# Unreadable films


def test_an_unreadable_film_is_listed_and_left_out(source: Folder, root: Path) -> None:
    source.content["57.png"] = OSError("broken data stream")
    source.content["8.png"] = ValueError("not grey")
    folder = build_cache(source, source.names, 8, root=root)
    assert holds(folder, source, [name for name in source.names if name not in ("8.png", "57.png")])
    listed = unreadable_films(folder).to_numpy().tolist()
    assert listed == [["8.png", "ValueError: not grey"], ["57.png", "OSError: broken data stream"]]


def test_more_than_one_unreadable_film_in_a_hundred_is_refused_with_the_first(source: Folder, root: Path) -> None:
    for image in ("9.png", "57.png", "58.png"):
        source.content[image] = OSError("broken data stream")
    with pytest.raises(
        DataError,
        match=r"^more than 1 % of 200 films cannot be read \(3 so far\); the first is 9\.png: OSError: broken data",
    ):
        build_cache(source, source.names, 8, root=root)
    assert open_caches(root) == []


def test_a_data_set_is_refused_as_soon_as_too_many_films_are_unreadable(source: Folder, root: Path) -> None:
    for row in range(10):
        source.content[f"{row}.png"] = OSError("broken data stream")
    with pytest.raises(DataError, match=r"\(3 so far\)"):
        build_cache(source, source.names, 8, root=root)
    assert len(source.read_films) <= 3 + 16 * len(os.sched_getaffinity(0)) + 1


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "flipped"])
def test_a_damaged_png_is_unreadable_and_not_fatal(nih_folder: Path, root: Path, damage: str) -> None:
    source = Nih(str(nih_folder))
    names = list(source.films["image"])
    victim = Path(nih_folder / "images_001" / "images" / names[3])
    whole = victim.read_bytes()
    middle = len(whole) // 2
    content = {"truncated": whole[:middle], "text": b"hello", "empty": b""}
    content["flipped"] = whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :]
    victim.write_bytes(content[damage])
    with pytest.raises(
        DataError,
        match=rf"^more than 1 % of 16 films .*; the first is {re.escape(victim.name)}: ",
    ):
        build_cache(source, names, 8, root=root)  # one in 16 is too many, but it is named
    victim.write_bytes(whole)
    assert len(open_cache(build_cache(source, names, 8, root=root))[0]) == 16


def test_a_film_that_has_vanished_since_its_table_was_read_is_unreadable(nih_folder: Path, root: Path) -> None:
    source = Nih(str(nih_folder))
    names = list(source.films["image"])
    Path(nih_folder / "images_001" / "images" / names[3]).unlink()
    with pytest.raises(
        DataError,
        match=r"^more than 1 % of 16 films .*; the first is 00000002_001\.png: FileNotFound",
    ):
        build_cache(source, names, 8, root=root)


def test_films_that_can_be_read_again_under_the_same_stamp_are_taken_in(source: Folder, root: Path) -> None:
    """As after a network share was away for a while."""
    whole = dict(source.content)
    source.content |= {f"{row}.png": OSError("stale file handle") for row in range(150, 200)}
    with pytest.raises(DataError, match=r"\(3 so far\)"):
        build_cache(source, source.names, 8, root=root)
    source.content = whole
    source.read_films.clear()
    assert holds(build_cache(source, source.names, 8, root=root), source, source.names)
    assert {int(name[:-4]) for name in source.read_films} == set(range(150, 200))


def test_a_film_that_the_system_kept_back_is_taken_in_once_it_can_be_read(source: Folder, root: Path) -> None:
    """As after `chmod`, which does not change a film's stamp."""
    film = source.content["57.png"]
    source.content["57.png"] = PermissionError(13, "Permission denied", "57.png")
    folder = build_cache(source, source.names, 8, root=root)
    before, _ = open_cache(folder)
    source.content["57.png"] = film
    source.read_films.clear()
    assert build_cache(source, source.names, 8, root=root) == folder
    assert holds(folder, source, source.names)
    assert len(source.read_films) < 20  # the others are copied
    assert len(before) == 199  # who has the older cache open keeps it
    assert open_caches(root) == [folder]


def test_a_film_that_a_decoder_refused_is_not_tried_at_every_start(source: Folder, root: Path) -> None:
    source.content["57.png"] = OSError("image file is truncated")
    build_cache(source, source.names, 8, root=root)
    source.read_films.clear()
    build_cache(source, source.names, 8, root=root)
    assert source.read_films == []


# Damage


def test_a_root_that_cannot_be_written_is_refused_with_the_remedy(source: Folder, root: Path) -> None:
    root.write_text("not a folder")
    with pytest.raises(DataError, match=rf"^{re.escape(str(root))}: .*Set CXR_CACHE to a folder"):
        build_cache(source, source.names, 8, root=root)


@pytest.mark.parametrize("name", ["images.npy", "manifest.parquet", "cache.json"])
@pytest.mark.parametrize("left", [None, 0, 7, 0.5], ids=["missing", "empty", "a few bytes", "half"])
def test_a_damaged_cache_is_refused_by_name(source: Folder, root: Path, name: str, left: float | None) -> None:
    folder = build_cache(source, source.names, 8, root=root)
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if left is not None:
        (folder / name).write_bytes(whole[: left if isinstance(left, int) else int(left * len(whole))])
    with pytest.raises(DataError, match=rf"^{re.escape(str(folder))}: .*delete the folder"):
        open_cache(folder)


def test_a_cache_with_fewer_films_than_rows_is_refused(source: Folder, root: Path) -> None:
    folder = build_cache(source, source.names, 8, root=root)
    np.save(folder / "images.npy", np.zeros((199, 8, 8), np.uint8))
    with pytest.raises(DataError, match="199 films but 200 rows"):
        open_cache(folder)


def test_a_cache_whose_films_are_not_of_its_size_is_refused(source: Folder, root: Path) -> None:
    folder = build_cache(source, source.names, 8, root=root)
    np.save(folder / "images.npy", np.zeros((200, 4, 4), np.uint8))
    with pytest.raises(DataError, match=r"its films are uint8\(200, 4, 4\) instead of uint8\(200, 8, 8\)"):
        open_cache(folder)


def test_a_list_of_unreadable_films_that_is_gone_is_damage(source: Folder, root: Path) -> None:
    folder = build_cache(source, source.names, 8, root=root)
    (folder / "unreadable.csv").unlink()
    with pytest.raises(DataError, match="delete the folder"):
        unreadable_films(folder)
