"""Time of one proposal after 10 to 10,000 trials, against the same Optuna sampler on a study of all of them.

    python -m benchmarks.suggest --write

The space is that of spaces/multilabel.yaml. Of the trials a fifth is complete, most are pruned at two rungs, some have
failed, and 8 are in flight; results are drawn, since only time is measured. Both take turns, in one process, and both
have seen the history before: what a restart costs is told apart.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from benchmarks.rounds import Ways, interleaved, machine, publish, ratio, table, timed
from search import searchers as ours
from search.proposals import Known, Proposal, propose
from search.space import load_space

ROOT = Path(__file__).resolve().parents[1]

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
DOMAINS = load_space(ROOT / "spaces" / "multilabel.yaml").domains
IN_FLIGHT = 8
PEERS: dict[str, Callable[[], BaseSampler]] = {
    "tpe": lambda: TPESampler(multivariate=True, group=True, constant_liar=True, seed=0),
    "gp": lambda: GPSampler(seed=0, warn_independent_sampling=False),
    "nsgaii": lambda: NSGAIISampler(seed=0),
    "random": lambda: RandomSampler(seed=0),
}
LARGEST_FOR_PEER = {"gp": 100}
"""Above, its cubic cost makes the benchmark too long."""

Trial = tuple[Known, Proposal]


def history(trials: int) -> list[Trial]:
    rng, states = np.random.default_rng(0), [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    found = []
    for number in range(trials):
        drawn = propose(DOMAINS, "random", [], seed=0, number=number, maximize=[True])
        state = states[rng.choice(3, p=[0.2, 0.75, 0.05])]
        value = (float(rng.random()),)
        if number >= trials - min(IN_FLIGHT, trials // 2):
            state = TrialState.RUNNING
        rung = int(rng.integers(2)) if state == TrialState.PRUNED else 0
        values = value if state in (TrialState.COMPLETE, TrialState.PRUNED) else ()
        found.append((Known(number, drawn.flat, state, values, rung), drawn))
    return found


def peer_study(name: str, trials: list[Trial]) -> optuna.Study:
    """What a user would have: one study with all trials, one sampler that lives as long as it."""
    study = optuna.create_study(direction="maximize", sampler=PEERS[name]())
    frozen, complete = [], 0
    for known, drawn in trials:
        generation = {NSGAIISampler._get_generation_key(): complete // 50} if name == "nsgaii" else {}
        complete += known.state == TrialState.COMPLETE
        frozen.append(
            create_trial(
                state=known.state,
                values=known.values if known.state == TrialState.COMPLETE else None,
                params=drawn.params,
                distributions=drawn.distributions,
                system_attrs=generation,
                intermediate_values={known.rung: known.values[0]} if known.state == TrialState.PRUNED else {},
            )
        )
    study.add_trials(frozen)
    return study


def asks(study: optuna.Study) -> Callable[[], float]:
    def run() -> float:
        start = time.perf_counter()
        asked = study.ask()
        ours.propose(DOMAINS, asked)
        seconds = time.perf_counter() - start
        study.tell(asked, state=TrialState.FAIL)  # so that the next round meets the same history
        return seconds

    return run


def measure(name: str, trials: list[Trial], rounds: int) -> list[tuple[str, list[float], str]]:
    """Rows in milliseconds: ours, the peer's, and ours in the first call after a restart."""
    known = [one for one, _ in trials]
    counter = iter(range(len(known), 10**9))

    def ask_ours() -> Proposal:
        return propose(DOMAINS, name, known, seed=0, number=next(counter), maximize=[True])

    restart = timed(lambda: propose(dict(DOMAINS), name, known, seed=0, number=len(known), maximize=[True]))
    first = [1e3 * restart() for _ in range(3)]
    ways: Ways = {"ours": timed(ask_ours)}
    if len(known) <= LARGEST_FOR_PEER.get(name, len(known)):
        ways["peer"] = asks(peer_study(name, trials))
    for way in ways.values():
        way()
    found = {way: [1e3 * s for s in seconds] for way, seconds in interleaved(ways, rounds).items()}
    head = f"{name}, {len(known):,} trials"
    faster = f"{ratio(found['peer'], found['ours']):.1f} times as fast" if "peer" in found else "peer not measured"
    rows = [(head, found["ours"], faster)]
    rows += [(f"{head}: Optuna's on all of them", found["peer"], "")] if "peer" in found else []
    return [*rows, (f"{head}: first call after a restart", first, "")] if len(known) >= 1000 else rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--trials", type=int, nargs="+", default=[10, 100, 1000, 10_000], metavar="N")
    add("--rounds", type=int, default=5, metavar="N")
    add("--write", action="store_true", help="write benchmarks/suggest.md")
    return parser.parse_args()


def main() -> None:
    args, about = parse(), machine("optuna", "torch", "numpy")
    longest = {trials: history(trials) for trials in args.trials}
    rows = []
    for name in PEERS:
        for trials in args.trials:
            rows += measure(name, longest[trials], args.rounds)
            print(f"{name}, {trials} trials: measured", file=sys.stderr)
    publish(
        __file__,
        "Time of a proposal",
        about,
        "Space of spaces/multilabel.yaml; a fifth of the trials complete, 75 % pruned at two rungs, 5 % failed, 8 in "
        "flight. Ours shows the sampler a part of the history and rebuilds it for each proposal, so that it is a "
        "function of the history; Optuna's own is shown all and keeps it. A ratio is the median of the rounds' ratios. "
        "Below the limits of what is shown (search/searchers.py) the difference is in what is told, not in how much: "
        "ours also tells GP and NSGA-II of pruned trials and of parameters in branches, which theirs leave out.",
        table("milliseconds", rows, 1),
        write=args.write,
    )


if __name__ == "__main__":
    main()
