"""The finals in MLflow: what they found, on the study's run, and what they hand over as a registered model.

`mlflow_view` calls this, as the only one; like it, nothing is remembered here but what MLflow itself says.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from search.finals.record import read_record, winner_row
from search.finals.words import optimism, reached
from search.hand_over.folder import CARD, COMPILED, KNOWN, MLFLOW, HandedOver, handed_over
from search.mlflow_notes import fit, moment
from search.study import Study

ALIAS = "challenger"
"""Of the version that the last finals of a model's name hand over. What is in use, `champion`, is the user's to say."""
_WRITTEN = "cxr.finals"
"""The tag of a run whose finals are written, with what of them: it is written last."""


class FinalsInMlflow:
    """The finals of a study and its run in MLflow. identity: the study's, by which its versions are found again."""

    def __init__(self, client: Any, run: str, study: Study, identity: str):
        self._client, self._run, self._study, self._identity = client, run, study, identity
        self._facts = study.facts

    def write(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Write what MLflow lacks by the run's tags; returns the tags that were set. Raises what MLflow raises.

        What is interrupted is done again, and nothing of it is there twice.
        """
        record = read_record(self._study.folder)
        if record is None:
            return {}
        made = handed_over(self._study.folder)
        if made and made.known["trial"] != record["delivered"]:
            made = None  # of earlier finals; those of this record are on their way
        state = _state(record, made)
        if tags.get(_WRITTEN) == state:
            return {}
        self._client.log_artifact(self._run, str(self._study.folder / "finalists.json"))
        version = self._hand_over(record, made) if made else {}
        new = {**_tags(record), **version, _WRITTEN: state}
        self._log(record, new)
        return new

    def _log(self, record: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        # Of the same finals always the same time: what was written before an interruption is not there twice.
        at = int((self._study.folder / "finalists.json").stat().st_mtime * 1000)
        step = len(record["openings"])
        metrics = [Metric(f"finals/{name}", value, at, step) for name, value in _figures(record)]
        self._client.log_batch(self._run, metrics=metrics, tags=[RunTag(key, value) for key, value in tags.items()])

    # The model

    def _hand_over(self, record: Mapping[str, Any], made: HandedOver) -> dict[str, str]:
        """The model among the run's artifacts and in the registry; returns its tags."""
        place = f"model/trial-{made.known['trial']:05d}"
        for name in (CARD, KNOWN):
            self._client.log_artifact(self._run, str(made.folder / name), "model")
        with tempfile.TemporaryDirectory() as clean:
            # A model that was served from its folder left compiled files there.
            whole = shutil.copytree(made.folder / MLFLOW, f"{clean}/{MLFLOW}", ignore=COMPILED)
            self._client.log_artifacts(self._run, whole, place)
        name = model_name(self._study.name)
        number = self._version(name, place, record, made)
        self._set_alias(name)
        return {"cxr.model": f"models:/{name}/{number}"}

    def _version(self, name: str, place: str, record: Mapping[str, Any], made: HandedOver) -> str:
        """The number of the version of this training; it is registered once."""
        tags = self._version_tags(record, made)
        if not self._client.search_registered_models(f"name = '{name}'"):
            told = f"What the finals of the study {self._study.name} hand over; research only, not for clinical use."
            self._client.create_registered_model(name, description=told)
        for version in self._versions(name):
            if all(version.tags.get(key) == tags[key] for key in ("cxr.study", "cxr.trial")):
                for key, value in tags.items():
                    if version.tags.get(key) != value:
                        self._client.set_model_version_tag(name, version.version, key, value)
                return str(version.version)
        source = f"{self._client.get_run(self._run).info.artifact_uri}/{place}"
        version = self._client.create_model_version(
            name, source, self._run, tags, description=_description(record), await_creation_for=0
        )
        return str(version.version)

    def _version_tags(self, record: Mapping[str, Any], made: HandedOver) -> dict[str, str]:
        test = winner_row(record)["test"]
        bounds = {name: "" if test[name] is None else f"{test[name]:.6f}" for name in ("mean", "low", "high")}
        return {
            "cxr.study": self._identity,
            "cxr.trial": str(made.known["trial"]),
            "cxr.dataset": self._facts["data"],
            "cxr.split": self._facts["split_hash"],
            "cxr.metric": record["metric"],
            **{f"cxr.test_{name}": bound for name, bound in bounds.items() if bound},
            "cxr.test_openings": str(len(record["openings"])),
            "cxr.sha256": made.known["sha256"],
            "cxr.handed_over": f"{made.known['made']:.3f}",
        }

    def _versions(self, name: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_model_versions(f"name = '{name}'", page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _set_alias(self, name: str) -> None:
        """To the version that was handed over last: an earlier study that is synchronised again must not take it."""
        last = max(self._versions(name), key=lambda version: float(version.tags.get("cxr.handed_over", 0)))
        if str(self._client.get_registered_model(name).aliases.get(ALIAS)) != str(last.version):
            self._client.set_registered_model_alias(name, ALIAS, last.version)


def model_name(study: str) -> str:
    """A study's name as MLflow takes the name of a model."""
    return re.sub(r"[^\w. -]", "_", study)


def _state(record: Mapping[str, Any], made: HandedOver | None) -> str:
    """Changes with what there is to write."""
    content = [record, made.known if made else None]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _figures(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values of the run's metrics; an undefined one has no point."""
    winner, metric = winner_row(record), record["metric"]
    values = {"test_openings": len(record["openings"]), "gap": record["gap"]["value"]}
    for split in ("test", "validation"):
        values[f"{split}_{metric}"] = winner[split]["mean"]
        values |= {f"{split}_{metric}_{end}": winner[split][end] for end in ("low", "high")}
    for name, value in values.items():
        if value is not None:
            yield name, float(value)


def _tags(record: Mapping[str, Any]) -> dict[str, str]:
    openings = "; ".join(f"{moment(opening['at'])}: {opening['reason']}" for opening in record["openings"])
    return {
        "cxr.winner": str(record["winner"]),
        "cxr.delivered": str(record["delivered"]),
        f"cxr.test_{record['metric']}": reached(winner_row(record)["test"]),
        "cxr.test_openings": fit(f"{len(record['openings'])} ({openings})"),
        "cxr.sentence": fit(record["sentence"]),
    }


def _description(record: Mapping[str, Any]) -> str:
    metric, test = record["metric"], reached(winner_row(record)["test"])
    told = f"Trial {record['delivered']}; its finalist's test {metric} is {test}. {optimism(record)}"
    return fit(f"{told} Research only, not for clinical use: see model_card.md beside the model.")
