"""Patient bootstrap of the AUROCs on ChestX-ray14's official test split against scikit-learn in a loop over resamples.

    python -m benchmarks.patient_bootstrap --data ../shared/data/nih_tables --write

Labels and patients are the real ones (2,797 patients, 25,596 films, 14 findings), scores are simulated. scikit-learn's
time is that of a few resamples, multiplied: all would take minutes. Both take turns, in one process.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.rounds import Ways, interleaved, machine, publish, ratio, table
from cxr_core.bootstrap import bootstrap
from cxr_core.labels import CHESTXRAY14

ROOT = Path(__file__).resolve().parents[1]


def test_split(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Targets (N, 14) in {0, 1} of the official test films, and the index of each film's patient (N,)."""
    entries = pd.read_csv(folder / "Data_Entry_2017_v2020.csv", index_col="Image Index")
    films = entries.loc[(folder / "test_list.txt").read_text().split()]
    targets = films["Finding Labels"].str.get_dummies("|")[list(CHESTXRAY14)]
    return targets.to_numpy(np.float32), pd.factorize(films["Patient ID"])[0]


def scikit_learn(targets: np.ndarray, scores: np.ndarray, patient: np.ndarray, resamples: int) -> np.ndarray:
    """AUROCs of each resample, (resamples, 14), as a user would take them; the draws are the first of ours."""
    rng, patients = np.random.default_rng(0), patient.max() + 1
    found = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(patients, size=patients), minlength=patients)
        columns = zip(targets.T, scores.T, strict=True)
        found.append([roc_auc_score(truth, score, sample_weight=times[patient]) for truth, score in columns])
    return np.array(found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, default=ROOT.parent / "shared" / "data" / "nih_tables", metavar="FOLDER")
    add("--resamples", type=int, default=2000, metavar="N")
    add("--peer-resamples", type=int, default=10, metavar="N")
    add("--rounds", type=int, default=5, metavar="N")
    add("--write", action="store_true", help="write benchmarks/patient_bootstrap.md")
    return parser.parse_args()


def main() -> None:
    args, about, cores = parse(), machine("numpy", "scikit-learn"), len(os.sched_getaffinity(0))
    targets, patient = test_split(args.data)
    rng = np.random.default_rng(0)
    scores = (targets + rng.normal(size=targets.shape)).astype(np.float32)
    results: dict[str, np.ndarray] = {}
    cpu: dict[str, list[float]] = {"ours": [], "theirs": []}

    def ours() -> float:
        start, busy = time.perf_counter(), time.process_time()
        results["ours"] = bootstrap(targets, scores, patient, resamples=args.resamples)["auroc_macro"]
        cpu["ours"].append(time.process_time() - busy)
        return time.perf_counter() - start

    def theirs() -> float:
        start, busy, share = time.perf_counter(), time.process_time(), args.resamples / args.peer_resamples
        results["theirs"] = scikit_learn(targets, scores, patient, args.peer_resamples)
        cpu["theirs"].append((time.process_time() - busy) * share)
        return (time.perf_counter() - start) * share

    ways: Ways = {"ours": ours, "theirs": theirs}
    wall = interleaved(ways, args.rounds)
    difference = np.abs(results["ours"][: args.peer_resamples] - results["theirs"]).max()
    rows = [
        (f"cxr_core, wall on {cores} cores", wall["ours"], f"{ratio(wall['theirs'], wall['ours']):.0f} times as fast"),
        ("cxr_core, CPU", cpu["ours"], f"{ratio(cpu['theirs'], cpu['ours']):.0f} times as fast"),
        ("scikit-learn in a loop, wall", wall["theirs"], f"from {args.peer_resamples} resamples"),
        ("scikit-learn in a loop, CPU", cpu["theirs"], f"from {args.peer_resamples} resamples"),
    ]
    publish(
        __file__,
        "Patient bootstrap: AUROCs of the official test split of ChestX-ray14",
        about,
        f"{args.resamples:,} resamples of {patient.max() + 1:,} patients with {len(targets):,} films, "
        f"{targets.shape[1]} findings, simulated scores; largest difference of an AUROC between the two "
        f"{difference:.0e}. A ratio is the median of the rounds' ratios.",
        table("seconds", rows, 1),
        write=args.write,
    )


if __name__ == "__main__":
    main()
