"""The finals of a study: its finalists trained with other seeds, evaluated on the test split, and compared."""

import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cxr_core.data import PreparedData
from cxr_core.full_disk import is_disk_full
from search.credibility import Credibility
from search.driver import drained_on_signal, drive, stopped_early
from search.durations import format_date
from search.films import prepare_again
from search.finals.ensemble import candidates, choose_members, judge_ensemble
from search.finals.explanation import explain_delivered
from search.finals.record import describe, evaluated, read_record, write_record
from search.finals.refit import Refit, refit_sentence
from search.finals.repeats import NoFinalist, Repeats, broken, choose, trainings_of
from search.finals.sealed_test import SealedTest
from search.finals.ties import tie_breakers
from search.finals.verdict import judge
from search.hand_over.folder import HandedOver, hand_over
from search.hand_over.publish import publish
from search.legs import DISK
from search.mlflow_writer import start_writer
from search.overview import ending
from search.placement import Resources
from search.preflight import PreflightError, check_disk
from search.space import Space, load_space
from search.study import Study, StudyError
from search.trial import Trial

log = logging.getLogger(__name__)

_USUAL = (3, 3)
"""(best trials, trainings of each) of finals."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for. top: trials by the objective. seeds: trainings of each. None: as many as the
    study's finals were begun with, or 3. reopen: the reason.

    hand_over: whether the winner is made ready for other programs, which takes a minute.
    refit: whether the winner is to be trained once more, on the validation films, too.
    data: where the study's films lie from now on, if not where they lay.
    """

    folder: Path
    top: int | None
    seeds: int | None
    reopen: str | None
    resources: Resources
    hand_over: bool = True
    refit: bool = False
    data: str | None = None


@dataclass(frozen=True)
class Result:
    """How it ended. record: as `finalists.json`, None if a signal or a full disk came first, named in `stopped`.

    model: what is handed over.
    ensemble: as `ensemble.json`. refit: what can be said of the winner's refit; empty without one.
    """

    record: dict[str, Any] | None
    report: Path | None
    stopped: str | None = None
    model: HandedOver | None = None
    ensemble: dict[str, Any] | None = None
    refit: str = ""


def begun(study: Study) -> tuple[int, int] | None:
    """(best trials, trainings of each) that the study's finals were begun with; None before."""
    size = study.facts.get("finals")
    return (size["top"], size["seeds"]) if size else None


def run_finals(request: Request) -> Result:
    """Train what the finalists lack, open the test split, and write down what it says.

    Where nothing new would be evaluated, the split stays closed and the result is told again. Raises StudyError,
    SpaceError, NoFinalist, PreflightError, and while networks are evaluated DataError or CheckpointError.
    """
    if not (request.folder / "journal.log").exists():
        raise StudyError(f"{request.folder}: there is no study here")
    with Study.lock(request.folder):
        Study.repair(request.folder)
        finals = _Finals(request)
        finals.check_opening()
        if request.data:
            prepare_again(finals.study, finals.space, request.data)
        try:
            result = finals.tell() if finals.is_done else finals.run()
            return finals.refit(result.record) if request.refit and result.record else result
        except OSError as fault:
            if not is_disk_full(fault):
                raise
            return Result(None, None, DISK)


class _Finals:
    """The finals of one study, in one session."""

    def __init__(self, request: Request):
        self.request = request
        self.study = Study(request.folder)
        self.space: Space = load_space(request.folder / "space.yaml")
        self.sealed = SealedTest(self.study)
        self._after = ending(self.study, self.study.trials())
        ties = self.study.objective.tie_breakers
        compare = Credibility(self.study, self.space.task.labels) if ties else None
        top, seeds = begun(self.study) or _USUAL
        self._size = {"top": request.top or top, "seeds": request.seeds or seeds}
        self.finalists = choose(self.study, self._size["top"], compare)
        numbers = [trial.number for trial in self.finalists]
        self.repeats = Repeats(self.study, self.space, numbers, self._size["seeds"], request.resources)

    @property
    def trainings(self) -> dict[int, list[Trial]]:
        """What can be evaluated, by finalist."""
        found = {trial.number: trainings_of(self.study, trial.number) for trial in self.finalists}
        return {number: trainings for number, trainings in found.items() if trainings}

    @property
    def _all(self) -> list[Trial]:
        return [training for trainings in self.trainings.values() for training in trainings]

    @property
    def _evaluated(self) -> list[Trial]:
        """What is evaluated: the finalists' trainings, and what else the ensemble is made of."""
        numbers = {training.number for training in self._all}
        return [*self._all, *(self.study.trial(n) for n in self.sealed.ensemble if n not in numbers)]

    @property
    def _device(self) -> torch.device:
        return torch.device("cuda" if self.request.resources.gpus and torch.cuda.is_available() else "cpu")

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to train or to evaluate."""
        opened = not self.sealed.unopened(self._all)
        return self.repeats.is_complete and opened and not self.sealed.unscored(self._evaluated)

    def check_opening(self) -> None:
        """Raise StudyError if the test split would have to be opened again, and no reason is given."""
        openings, again = self.sealed.openings, self.request.reopen
        if not openings or again or (self.repeats.is_complete and not self.sealed.unopened(self._all)):
            return
        last = openings[-1]
        times = f"{len(openings)} times, last" if len(openings) > 1 else "once,"
        raise StudyError(
            f"{self.study.folder}: the test split was opened {times} on {format_date(last['at'])} ({last['reason']}), "
            "and trainings that were not evaluated then would open it again. If that is meant: --reopen-test REASON; "
            "the report counts the openings"
        )

    def run(self) -> Result:
        """Train, open, evaluate, compare."""
        if self._after is None or self._after["why"] in signal.Signals.__members__:
            log.warning("%s: its search has not ended; its finalists are the best so far", self.study.folder)
        check_disk(self.study.folder, self.space, self.request.resources.concurrent)
        prepared = prepare_again(self.study, self.space)
        if prepared.test_cache is None:
            raise PreflightError(
                f"{self.study.folder}: {self.study.facts['data']} has no test split, so there is nothing to "
                "judge finalists by; give data.test a share in the space of a new study"
            )
        # Before anything is trained: by these facts the finalists' checkpoints are kept, and a later command goes on.
        self.study.note("finalists", [trial.number for trial in self.finalists])
        self.study.note("finals", self._size)
        if not self.repeats.is_complete:
            self._train(prepared)
        if self.repeats.stopping is None:
            self._evaluate(prepared)
        return Result(None, None, stopped_early(self.repeats)) if self.repeats.stopping else self.tell()

    def refit(self, record: dict[str, Any]) -> Result:
        """Train the winner on the validation films, too, unless that was done."""
        winner, delivered = record["winner"], record["delivered"]
        refit = Refit(self.study, self.space, winner, delivered, self.request.resources)
        if not refit.is_complete:
            check_disk(self.study.folder, self.space, 1)
            log.info("refit: trial %d once more, on the validation films, too", winner)
            self._drive(refit, prepare_again(self.study, self.space))
        return Result(None, None, stopped_early(refit)) if refit.stopping else self.tell()

    def _train(self, prepared: PreparedData) -> None:
        interrupted = [self.study.trial(number) for number in self.repeats.interrupted]
        folds = len(self.repeats.lacking_folds()) + sum(trial.fold is not None for trial in interrupted)
        log.info(
            "finalists: %s; %d trainings to go%s",
            ", ".join(f"trial {trial.name}" for trial in self.finalists),
            self.repeats.left + len(interrupted),
            f", {folds} of them on other folds, to break a tie" if folds else "",
        )
        self._drive(self.repeats, prepared)

    def _drive(self, legs: Repeats, prepared: PreparedData) -> None:
        with start_writer(self.study.folder) as writer:
            drive(self.study, legs, prepared, self.request.resources, after=self._after)
            self.study.note("seconds_used", legs.budget.elapsed)
            if not writer.finish():
                log.warning("MLflow is behind; later: python -m search.mlflow_sync %s", self.study.folder)

    def _evaluate(self, prepared: PreparedData) -> None:
        stopped = lambda: self.repeats.stopping is not None  # noqa: E731
        with drained_on_signal(self.repeats):
            if self.sealed.unopened(self._all):
                self._open(prepared, stopped)
            if not stopped():
                left = self.sealed.unscored(self._evaluated)
                self.sealed.evaluate(left, prepared, self._device, stopped)

    def _open(self, prepared: PreparedData, stopped: Callable[[], bool]) -> None:
        """Choose the ensemble, and open the split for it and for the finalists: who is judged is settled before."""
        trainings, metric = self._all, self.study.objective.judged
        known = candidates(self.study)
        self.sealed.validate(known, prepared, self._device, stopped)
        if stopped():
            return
        scores = self.sealed.validated({trial.number: [trial] for trial in known}, self.space.task.labels)
        members = choose_members(scores, metric)
        log.info("ensemble: %d of %d networks, chosen on validation", len(members), len(known))
        numbers = {training.number for training in trainings}
        new = self.sealed.unopened([*trainings, *(self.study.trial(n) for n in members if n not in numbers)])
        self.sealed.open(new, self.request.reopen or "to evaluate the finalists", members)
        log.info("the test split is opened (%d in all) for %d trainings", len(self.sealed.openings), len(new))

    def tell(self) -> Result:
        """Compare what was evaluated, unless that was done, and write it down."""
        from search.evidence.gather import gather_evidence
        from search.report import write_report  # seconds to import

        trainings = self.trainings
        record = read_record(self.study.folder)
        openings = self.sealed.openings
        known = record and evaluated(record) == _numbers(trainings)
        if not record or not known or record["openings"] != openings:
            record = self._compare(trainings)
            write_record(self.study.folder, record)
        ensemble = judge_ensemble(self.study, self.sealed, self.space.task.labels, record, self._device)
        gather_evidence(self.study, record, self.space.task.labels)
        explain_delivered(self.study, self.space, record["delivered"], self._device)
        try:
            model = hand_over(self.study, record) if self.request.hand_over else None
        finally:  # the finals are made, whatever becomes of what follows them
            report = write_report(self.study)
        if model:
            publish(self.study, model)
        self.study.note("finals_ended", time.time())
        refit = refit_sentence(self.study.trials(), record)
        return Result(record, report, ensemble=ensemble, refit=refit, model=model)

    def _compare(self, trainings: Mapping[int, Sequence[Trial]]) -> dict[str, Any]:
        eligible = {trial.number for trial in self.study.eligible()}
        if not eligible & set(trainings):
            raise NoFinalist(f"{self.study.folder}: of no trial that may win a checkpoint is left; search again")
        validation, test = self.sealed.scored(trainings, self.space.task.labels)
        objective = self.study.objective
        breakers = tie_breakers(objective, trainings, self.study.trials())
        verdict = judge(validation, test, objective.judged, may_win=eligible, breakers=breakers)
        lost = broken(self.study, list(trainings))
        return describe(self.study.folder, verdict, self.finalists, trainings, lost, self.sealed.openings)


def _numbers(trainings: Mapping[int, Sequence[Trial]]) -> dict[int, list[int]]:
    return {finalist: [trial.number for trial in of] for finalist, of in trainings.items()}
