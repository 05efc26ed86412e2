"""The films of a study: read, split, cached and told about; and later, found to be the same ones."""

import logging

from cxr_core.data import DataError, DataName, PreparedData, TrainingData
from search.preflight import PreflightError, parse_data_name, prepare_data
from search.space import Space
from search.study import Study

log = logging.getLogger(__name__)


def prepare_films(space: Space, name: DataName, seed: int) -> PreparedData:
    """Prepare a space's films and say what they are. Raises PreflightError."""
    log.info("data: %s at %d px", name, space.header.data.image_size)
    prepared = prepare_data(name, space.header.data.policy, space.task, seed)
    films, patients = prepared.facts["films"], prepared.facts["patients"]
    for part in films:
        sealed = "  (sealed: no trial is given it)" if part == "test" else ""
        log.info("  %-5s %6d films of %6d patients%s", part, films[part], patients[part], sealed)
    for note in prepared.notes:
        log.info("  note: %s", note)
    if unreadable := len(prepared.unreadable):
        log.info("  %d unreadable films left out; the first is %s (%s)", unreadable, *prepared.unreadable.iloc[0])
    if (folds := space.objective.divisions) > 1:
        _check_folds(prepared, folds)
    return prepared


def _check_folds(prepared: PreparedData, folds: int) -> None:
    """Say how many films each fold has. Raises PreflightError if one cannot be trained, or its films cannot judge."""
    try:
        data = TrainingData.open(prepared.cache, prepared.development, prepared.task.labels)
        parts = [data.fold(index, folds) for index in range(folds)]
    except DataError as fault:
        raise PreflightError(str(fault)) from None
    for index, part in enumerate(parts):
        both = [{0.0, 1.0} <= set(column.tolist()) for column in part.val.targets.T]
        if not any(both):
            raise PreflightError(
                f"fold {index + 1} of {folds}: of no finding the {len(part.val)} films that judge include some with "
                "and some without it; take fewer folds (objective.folds)"
            )
    learnt, judging = [len(part.train) for part in parts], [len(part.val) for part in parts]
    told = [", ".join(f"{count:,}" for count in counts) for counts in (learnt, judging)]
    log.info("  %d folds: %s films to learn from, judged by %s", folds, *told)
    if 2 * learnt[0] < learnt[-1]:
        log.warning("  but for the last one, they have few films to learn from: take more folds (objective.folds)")


def prepare_again(study: Study, space: Space, data: str | None = None) -> PreparedData:
    """The films that a study began with, and what they are; data: where they lie from now on. Raises PreflightError."""
    before, seed = study.facts["data"], study.facts["seed"]
    prepared = _same(study, prepare_films(space, parse_data_name(data or before), seed))
    if (now := prepared.facts["data"]) != before:  # workers and finals look where the study says
        log.info("data: was %s, is %s", before, now)
        study.note("data", now)
    return prepared


def read_again(study: Study, space: Space) -> PreparedData:
    """The films that a study began with, without a word. Raises PreflightError if they are not the same."""
    name, policy = parse_data_name(study.facts["data"]), space.header.data.policy
    return _same(study, prepare_data(name, policy, space.task, study.facts["seed"]))


def _same(study: Study, prepared: PreparedData) -> PreparedData:
    if prepared.facts["split_hash"] != study.facts["split_hash"]:
        raise PreflightError(
            f"{study.folder}: the films or their split are not the ones this study began with ({study.facts['data']}); "
            "restore them, or start another study with --study NAME"
        )
    return prepared
