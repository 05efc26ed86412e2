"""What is handed over, told to MLflow: at once if its server answers, else by `python -m search.mlflow_sync`."""

import logging
import shlex

from search.hand_over.folder import HandedOver
from search.mlflow_writer import start_writer
from search.study import Study

log = logging.getLogger(__name__)


def publish(study: Study, made: HandedOver) -> None:
    """Bring MLflow up to date with the finals, unless that was done; a server that fails changes nothing of them."""
    told = {"model": made.known["fingerprint"], "made": made.known["made"], "mlflow": study.facts["mlflow"]}
    if study.facts.get("handed_over") == told:
        return
    with start_writer(study.folder) as writer:
        up_to_date = writer.finish()
    if up_to_date:
        study.note("handed_over", told)
    else:
        log.warning(
            "MLflow does not know of the finals, as it cannot be written (%s says why); when it can: "
            "python -m search.mlflow_sync %s",
            study.folder / "mlflow.log",
            shlex.quote(str(study.folder)),
        )
