"""The data side against what limits it and against what a user would write: cache, batches, augmentation, memory.

    python -m benchmarks.data --data ../shared/data/nih_1024

Needs some 1,024 px films in the layout of ChestX-ray14, and 5.7 GB of disk for a cache of as many films as the whole
set has. Everything that is compared runs in turn, in one process, on the same films.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.large_cache import WHOLE_SET, make_cache
from benchmarks.rounds import Ways, interleaved, machine, publish, rates, ratio, table, timed
from cxr_core.augmentations import augmentations
from cxr_core.batches import Batches
from cxr_core.config import Task, TrainConfig
from cxr_core.data import DataPolicy, Films, TrainingData, build_cache, open_cache, split_by_patient
from cxr_core.data.data_sets.nih import Nih
from cxr_core.labels import CHESTXRAY14
from cxr_core.normalisations import normalisations
from cxr_core.registry import Chosen
from cxr_core.train import train

ROOT = Path(__file__).resolve().parents[1]

BATCH, STEP_BATCH = 64, 32
CORES = len(os.sched_getaffinity(0))
EVERYTHING = {"crop": 0.2, "horizontal_flip": True, "equalize": 0.5, "gamma": 0.2, "brightness": 0.1, "noise": 0.05}


# The cache


def decode(path: str) -> None:
    with Image.open(path) as film:
        film.convert("L")


def users_loop(paths: list[str], out: Path) -> None:
    films = []
    for path in paths:
        with Image.open(path) as film:
            films.append(np.asarray(film.convert("L").resize((224, 224), Image.Resampling.BOX)))
    np.save(out, np.stack(films))


def folder_loader(
    root: Path, last: Callable[[Image.Image], torch.Tensor], shuffle: bool
) -> torch.utils.data.DataLoader:
    steps = [transforms.Grayscale(), transforms.Resize((224, 224)), last]
    films = ImageFolder(root, transforms.Compose(steps))
    return DataLoader(films, BATCH, shuffle=shuffle, num_workers=2, persistent_workers=True)


def cache_section(source: Nih, links: Path, place: Path, rounds: int) -> str:
    images = source.films["image"].tolist()
    paths = [source.paths[image] for image in images]
    empty = (place / f"root-{number}" for number in count())

    def build(image_size: int) -> None:
        build_cache(source, images, image_size, root=next(empty))

    def torchvision_way() -> None:
        batches = folder_loader(links, transforms.PILToTensor(), shuffle=False)
        np.save(place / "theirs.npy", torch.cat([films for films, _ in batches]).numpy())

    with ThreadPoolExecutor(CORES) as threads, ProcessPoolExecutor(CORES) as processes:
        for pool in (threads, processes):  # a pool's start is not the limit
            list(pool.map(decode, paths))
        ways = {
            "decoding alone, threads": lambda: list(threads.map(decode, paths)),
            "decoding alone, processes": lambda: list(processes.map(decode, paths)),
            "cache, 224 px": partial(build, 224),
            "cache, 256 px": partial(build, 256),
            "a user's loop, 224 px": partial(users_loop, paths, place / "users.npy"),
            "torchvision, 2 workers, 224 px": torchvision_way,
        }
        seconds = interleaved({name: timed(work) for name, work in ways.items()}, rounds + 1)
    films = rates({name: values[1:] for name, values in seconds.items()}, len(paths))
    limit = max((films[name] for name in list(ways)[:2]), key=statistics.median)

    def remark(name: str) -> str:
        return "the limit" if films[name] is limit else f"{ratio(films[name], limit):.2f} of the limit"

    rows = [(name, films[name], remark(name)) for name in ways]
    return f"## Cache of {len(paths)} films of 1,024 px, {CORES} cores\n\n{table('films/s', rows)}"


# Batches


def gather(films: Films, batches: list[np.ndarray], out: np.ndarray) -> None:
    for index in batches:
        films.pixels(index, out=out[: len(index)])


def copy(images: np.ndarray, batches: list[np.ndarray], out: np.ndarray) -> None:
    """As many bytes as `gather` copies, from one place after the other."""
    start = 0
    for index in batches:
        if start + len(index) > len(images):
            start = 0
        np.copyto(out[: len(index)], images[start : start + len(index)])
        start += len(index)


def batch_section(caches: dict[str, Path], links: Path, rounds: int) -> str:
    loader = folder_loader(links, transforms.ToTensor(), shuffle=True)
    ways: Ways = {"ImageFolder + DataLoader": timed(lambda: list(loader))}
    counts = {"ImageFolder + DataLoader": len(loader.dataset)}
    for name, folder in caches.items():
        images, _ = open_cache(folder)
        drawn = max(len(images), 200 * BATCH)
        order = np.random.default_rng(0).integers(len(images), size=drawn)
        batches = np.array_split(order, drawn // BATCH)
        out = np.empty((BATCH + 1, *images.shape[1:]), np.uint8)

        def films(images: np.ndarray) -> Films:
            return Films(images, np.arange(len(images)), np.zeros((len(images), 1)), pd.DataFrame())

        def opened(folder: Path, batches: list[np.ndarray], out: np.ndarray) -> None:
            gather(films(open_cache(folder)[0]), batches, out)

        ways[f"{name}: first epoch of a process"] = timed(partial(opened, folder, batches, out))
        ways[f"{name}: later epochs"] = timed(partial(gather, films(images), batches, out))
        ways[f"{name}: memory copy"] = timed(partial(copy, images, batches, out))
        counts |= dict.fromkeys(list(ways)[-3:], drawn)
    seconds = interleaved(ways, rounds + 1)
    found = {name: rates({name: values[1:]}, counts[name])[name] for name, values in seconds.items()}
    peer = found["ImageFolder + DataLoader"]

    def remark(name: str) -> str:
        if "copy" in name or found[name] is peer:
            return ""
        share = ratio(found[name], found[f"{name.partition(':')[0]}: memory copy"])
        return f"{share:.2f} of the copy; {ratio(found[name], peer):,.0f} times the loader"

    rows = [(name, values, remark(name)) for name, values in found.items()]
    title = f"## Random batches of {BATCH} as uint8, one core (the loader: 2 processes, from the files, float32)"
    return f"{title}\n\n{table('films/s', rows)}"


# Augmentation


def step_section(source: Nih, cache: Path, rounds: int) -> str:
    torch.set_num_threads(1)
    table_of_films = source.films.assign(split="train_val")
    films = split_by_patient(table_of_films, CHESTXRAY14, DataPolicy(image_size=224, validation=0.1, test=0.01))
    data = TrainingData.open(cache, films, CHESTXRAY14)
    task, drawn = Task("multilabel", CHESTXRAY14), np.arange(len(data.train))[: 2 * STEP_BATCH]
    train_films, normalise = Batches(data.train, torch.device("cpu")), normalisations["zscore"].function(data)
    config = TrainConfig(
        task=task, image_size=224, model=Chosen("resnet18"), augment=Chosen("none"), batch_size=STEP_BATCH, epochs=99
    )
    epochs = train(config, data)

    def step() -> float:
        return STEP_BATCH / next(epochs).films_per_second

    def prepare(augment: Chosen) -> float:
        generator, start = torch.Generator().manual_seed(0), time.perf_counter()
        for index in np.split(drawn, 2):
            normalise(augmentations.call(augment, train_films.films(index), generator))
        return (time.perf_counter() - start) / 2

    inputs = {
        "input, no augmentation": Chosen("none"),
        "input, `standard`": Chosen("standard"),
        "input, `standard` with everything on": Chosen("standard", {**EVERYTHING, "erasing": 0.5}),
    }
    seconds = interleaved({"step": step} | {name: partial(prepare, way) for name, way in inputs.items()}, rounds + 1)
    step_ms, *rest = [[1000 * value for value in values[1:]] for values in seconds.values()]
    network = [all_of - none for all_of, none in zip(step_ms, rest[0], strict=True)]
    rows = [("resnet18 step without its input", network, "")]
    for name, values in zip(inputs, rest, strict=True):
        step_with = [a + b for a, b in zip(values, network, strict=True)]
        rows.append((name, values, f"{100 * ratio(values, step_with):.1f} % of the step"))
    title = f"## Input of a training step: {STEP_BATCH} films of 224 px, one thread"
    return f"{title}\n\n{table('ms a batch', rows, 1)}"


# Memory


def memory_section(folders: list[Path], rounds: int) -> str:
    """Each folder's films in a process of its own."""
    found: dict[Path, list[dict[str, float]]] = {folder: [] for folder in folders}
    for _ in range(rounds):
        for folder in folders:
            command = [sys.executable, "-m", "benchmarks.worker_memory", str(folder)]
            found[folder].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    columns = {
        "tables": "its tables",
        "start": "private: before",
        "opening": "private: peak while opening",
        "epoch": "private: peak in the epoch",
        "rss": "RSS: peak",
    }
    lines = [f"| films of 224 px | n | {' | '.join(columns.values())} |", "|---:|---:|" + "---:|" * len(columns)]
    for runs in found.values():
        cells = [f"{statistics.median(run[column] for run in runs):,.0f}" for column in columns]
        lines.append(f"| {runs[0]['films']:,} | {len(runs)} | {' | '.join(cells)} |")
    text = "\n".join(lines)
    return f"## Memory of a worker that gathers every film once, MiB\n\n{text}\n\n{_OF_MEMORY}"


_OF_MEMORY = (
    "Private is anonymous memory. RSS counts pages of the cache's file as well, which all processes of a node share "
    "and the kernel takes back when it needs them (so does USS, as long as one process alone has mapped them)."
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, default=ROOT.parent / "shared" / "data" / "nih_1024", metavar="FOLDER")
    add("--rounds", type=int, default=7, metavar="N")
    add("--films", type=int, default=WHOLE_SET, metavar="N", help="films of the large cache")
    add("--only", choices=SECTIONS, metavar="SECTION", help=f"one of {', '.join(SECTIONS)}")
    add("--write", action="store_true", help="write benchmarks/data.md")
    return parser.parse_args()


SECTIONS = ("cache", "batches", "step", "memory")


def sections(args: argparse.Namespace, place: Path) -> Iterator[str]:
    """Measure one after the other."""
    source, wanted = Nih(str(args.data)), [args.only] if args.only else SECTIONS
    images = source.films["image"].tolist()
    links = place / "links"
    for number, image in enumerate(images):  # ImageFolder wants a folder for each class
        target = links / ("finding" if number % 2 else "normal") / image
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.paths[image])
    if "cache" in wanted:
        yield cache_section(source, links, place, args.rounds)
    caches = {
        f"{len(images)} films, {size} px": build_cache(source, images, size, root=place / "few") for size in (224, 256)
    }
    few = next(iter(caches.values()))
    if "step" in wanted:
        yield step_section(source, few, min(args.rounds, 3))
    if {"batches", "memory"} & set(wanted):
        make_cache(place / "many", few, args.films)
    if "memory" in wanted:
        make_cache(place / "hundredth", few, args.films // 100)
        yield memory_section([place / "hundredth", place / "many"], 3)
    if "batches" in wanted:
        yield batch_section(caches | {f"{args.films:,} films, 224 px": place / "many"}, links, args.rounds)


def main() -> None:
    args, about = parse(), machine("torch", "torchvision", "pillow", "numpy")
    with tempfile.TemporaryDirectory(prefix="data-benchmark-") as place:
        measured = list(sections(args, Path(place)))
    publish(__file__, "The data side: speed and memory", about, _ROUNDS, *measured, write=args.write)


_ROUNDS = (
    "The rows of a table are measured in turn, n rounds after one that does not count; a ratio is the median of the "
    "rounds' ratios. Files are in the page cache. Memory is that of processes of their own."
)


if __name__ == "__main__":
    main()
