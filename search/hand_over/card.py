"""The model card of what is handed over, after Mitchell et al. 2019 (arXiv:1810.03993)."""

import importlib.resources
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from cxr_core.checkpoint import Checkpoint, load_checkpoint
from cxr_core.predict import DEFAULT_RULE, DISCLAIMER
from search.durations import format_date, format_duration
from search.evidence.record import read_evidence
from search.evidence.split import Split
from search.evidence.words import in_words
from search.finals import words
from search.finals.record import winner_row
from search.finals.sealed_test import SealedTest
from search.hand_over.judged import METRICS, rows
from search.hand_over.statements import statement
from search.study import Study

_VALIDATION = "by which network, thresholds and winner were chosen: these figures are optimistic"
_TEST = "of the sealed test split, by which nothing was chosen"


def model_card(study: Study, record: Mapping[str, Any], checkpoint: Path, known: Mapping[str, Any]) -> str:
    """The card in Markdown. checkpoint: of what is handed over; record, known: `finalists.json`, `hand_over.json`."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")
    template = importlib.resources.files("search.hand_over").joinpath("model_card.md.j2").read_text("utf-8")
    return environment.from_string(template).render(_content(study, record, load_checkpoint(checkpoint), known))


def _content(
    study: Study, record: Mapping[str, Any], checkpoint: Checkpoint, known: Mapping[str, Any]
) -> dict[str, Any]:
    facts, trial, config = study.facts, study.trial(record["delivered"]), checkpoint.config
    labels, rule = config.task.labels, np.array(checkpoint.thresholds[DEFAULT_RULE], np.float64)
    parts = [part for part in ("train", "val", "test") if part in facts["films"]]
    validation, test = (Split(films, scores, labels) for films, scores in SealedTest(study).told_of(trial))
    return {
        "name": study.name,
        "disclaimer": DISCLAIMER,
        "trial": trial,
        "finalist": winner_row(record),
        "record": record,
        "words": words,
        "known": known,
        "made": format_date(known["made"]),
        "trained": format_date(trial.epochs[-1].at) if trial.epochs else "unknown",
        "took": format_duration(sum(epoch.seconds for epoch in trial.last_training)),
        "device": "GPU" if any(epoch.peak_memory for epoch in trial.epochs) else "CPU",
        "facts": facts,
        "task": config.task,
        "metric": record["metric"],
        "parts": parts,
        "amounts": [[what, *(f"{facts[what][part]:,}" for part in parts)] for what in ("films", "patients")],
        "prevalences": [[label, *(_share(facts["labels"][label][part]) for part in parts)] for label in labels],
        "labels": labels,
        "settings": {"seed": config.seed, **config.flat},
        "image_size": config.image_size,
        "architecture": config.model.params.get("name", config.model.name),
        "footprint": config.footprint(),
        "views": str(config.views),
        "aspect": checkpoint.aspect,
        "versions": {**facts["versions"], **checkpoint.versions},
        "statement": statement(facts["data"], labels),
        "splits": [
            ("Validation", _VALIDATION, list(rows(validation, rule))),
            ("Test", _TEST, list(rows(test, rule))),
        ],
        "columns": list(METRICS.values()),
        "thresholds": list(_thresholds(checkpoint)),
        "rules": list(checkpoint.thresholds),
        "rule": DEFAULT_RULE,
        "openings": [(format_date(opening["at"]), opening) for opening in record["openings"]],
        "subgroups": list(_subgroups(study.folder, record)),
    }


def _share(counted: Mapping[str, Any]) -> str:
    """Films with a finding, and their share of the films where that is known."""
    share = "not labelled" if counted["prevalence"] is None else f"{counted['prevalence']:.1%}"
    return f"{counted['positive']:,} ({share})"


def _thresholds(checkpoint: Checkpoint) -> Iterator[tuple[str, ...]]:
    """A finding and its threshold by each rule."""
    for c, label in enumerate(checkpoint.config.task.labels):
        yield label, *(_threshold(of[c]) for of in checkpoint.thresholds.values())


def _threshold(value: float) -> str:
    if math.isnan(value):
        return "none: too few films"
    return "calls nothing" if math.isinf(value) else f"{value:.4f}"


def _subgroups(folder: Path, record: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Sex, age and view, with films, patients and figures on test, from `evidence.json` as far as it tells of them."""
    evidence = read_evidence(folder, record)
    for group in evidence["groups"]["groups"] if evidence else ():
        figures = [in_words(group[name]["mean"]) for name in ("auroc", "sensitivity", "specificity")]
        yield f"{group['kind']}: {group['name']}", f"{group['films']:,}", f"{group['patients']:,}", *figures
