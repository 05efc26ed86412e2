"""How often the 95 % interval of a winner's test metric holds the true value, in simulated studies.

    python -m benchmarks.interval_coverage --films ../shared/data --write

Three finalists with two seeds each are judged by `search.finals.verdict.judge`, as in every study: the best on
validation is the winner, and its mean over the seeds has an interval over the test patients. Scores are binormal, so
that the AUROC of each finding is known: Phi(d / sqrt 2) for scores d standard deviations apart.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from scipy.stats import binomtest, norm

from benchmarks.claims import FEWEST
from benchmarks.rounds import machine, publish
from cxr_core.data import DataName, DataPolicy, prepare
from cxr_core.labels import LABEL_SETS, Task
from search.finals.verdict import Scored, judge


@dataclass(frozen=True, eq=False)
class Films:
    """Films that a study is judged on. targets: (N, C) in {0, 1}. patients: (N,)."""

    targets: np.ndarray
    patients: np.ndarray

    def scored(self, rng: np.random.Generator, apart: dict[int, float]) -> Scored:
        """What two seeds of each finalist make of them: half of a score's noise is the film's, and the same for all,
        a quarter the patient's, and a quarter the training's."""
        shared = rng.normal(size=self.targets.shape) * sqrt(0.5)
        of_patient = rng.normal(size=(self.patients.max() + 1, self.targets.shape[1]))[self.patients] * 0.5
        scores = {}
        for number, distance in apart.items():
            noise = rng.normal(size=(2, *self.targets.shape)) * 0.5
            scores[number] = norm.cdf(self.targets * distance + shared + of_patient + noise)
        return Scored(self.targets, self.patients, scores)


@dataclass(frozen=True, eq=False)
class Regime:
    """A kind of study. area: true AUROC of the best finalist; the other two have .01 and .02 less."""

    name: str
    validation: Films
    test: Films
    area: float

    def study(self, seed: int) -> tuple[float, float, float]:
        """The ends of the interval of one simulated study, and the truth."""
        rng = np.random.default_rng(seed)
        truth = {number: self.area - number / 100 for number in range(3)}
        apart = {number: sqrt(2) * float(norm.ppf(area)) for number, area in truth.items()}
        splits = (films.scored(rng, apart) for films in (self.validation, self.test))
        verdict = judge(*splits, "auroc_macro", resamples=1000)
        reached = verdict.test.reached[verdict.winner]
        return reached.low, reached.high, truth[verdict.winner]


def regimes(folder: Path) -> list[Regime]:
    """Real films with their labels, and sets of films with one finding that is more and more rare."""
    found = []
    for title, name, task, area in (
        ("PneumoniaMNIST", f"medmnist:{folder}/pneumoniamnist.npz", Task("binary", ("Pneumonia",)), 0.985),
        ("nih_mini", f"nih:{folder}/nih_mini", Task("multilabel", LABEL_SETS["chestxray14"]), 0.62),
    ):
        films = prepare(DataName.parse(name), DataPolicy(image_size=28, validation=0.15, duplicates="drop"), task).films
        parts = {part: films[films["split"] == part] for part in ("val", "test")}
        codes = {part: np.unique(of["patient"], return_inverse=True)[1] for part, of in parts.items()}
        test = parts["test"]
        common = [label for label in task.labels if FEWEST <= test[label].sum() < len(test)]
        for labels in (task.labels, common) if len(common) < len(task.labels) else (task.labels,):
            splits = (Films(of[list(labels)].to_numpy(np.float64), codes[part]) for part, of in parts.items())
            findings = "1 finding" if len(labels) == 1 else f"{len(labels)} findings"
            said = f" with at least {FEWEST} of them" if labels is common else ""
            found.append(Regime(f"{title}, {len(test)} test films, {findings}{said}", *splits, area))
    for positives, area in ((100, 0.80), (20, 0.80), (20, 0.95), (10, 0.80), (10, 0.95), (5, 0.80)):
        films = Films((np.arange(200) < positives)[:, None].astype(np.float64), np.arange(200))
        found.append(Regime(f"one finding, {positives} of 200 test films", films, films, area))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=Path, required=True, help="folder of pneumoniamnist.npz and nih_mini")
    parser.add_argument("--studies", type=int, default=400, metavar="N")
    parser.add_argument("--write", action="store_true", help="write benchmarks/interval_coverage.md")
    args, about = parser.parse_args(), machine("numpy", "scipy")
    lines = ["| test films | true AUROC | studies | interval holds it | lies above it | lies below it |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    with ProcessPoolExecutor() as pool:
        for regime in regimes(args.films):
            low, high, truth = np.array(list(pool.map(regime.study, range(args.studies), chunksize=20))).T
            held = int(((low <= truth) & (truth <= high)).sum())
            sure = binomtest(held, args.studies).proportion_ci(method="wilson")
            missed = (f"{of.mean():.1%}" for of in (low > truth, high < truth))
            shares = (f"{held / args.studies:.1%} ({sure.low:.1%}-{sure.high:.1%})", *missed)
            lines.append(f"| {regime.name} | {regime.area} | {args.studies} | {' | '.join(shares)} |")
    publish(__file__, "Coverage of 95 % intervals", about, _ABOUT, "\n".join(lines), write=args.write)


_ABOUT = """In simulated studies with known truth, how often the 95 % interval of the winner's test AUROC holds it
(`cxr_core.area_intervals`, mean of two seeds; macro AUROC where there are several findings),
in brackets the 95 % interval of that share (Wilson). Films, patients and labels of the first three are real, scores are
simulated."""


if __name__ == "__main__":
    main()
