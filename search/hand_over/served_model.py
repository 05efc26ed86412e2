"""The network that is handed over as MLflow serves it; a copy of this file runs inside the model, without the search.

A request is a table with a film a row: in the column `image` the bytes of a PNG, JPEG or DICOM file, in base64 where
they come as text. The parameter `threshold` names the rule of the thresholds. Each row is answered by an object:
`findings`, with `probability`, `threshold` and `above` of each, or None; `refused`, why there are none, or None; and
the rule. A film that is refused does not disturb the others.
"""

import base64
import binascii
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

_SEND_FILE = "give the content of a PNG, JPEG or DICOM file, as bytes or in base64"


class ServedModel(PythonModel):
    """A saved network with the code that reads, squares and normalises films beside it."""

    def load_context(self, context: PythonModelContext) -> None:
        from cxr_core.device import named_device
        from cxr_core.predict import Predictor

        self._predictor = Predictor.load(context.artifacts["checkpoint"], named_device())

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """What there is to say of each row, in their order."""
        from cxr_core.predict import DEFAULT_RULE, Refusal, ThresholdError

        rule = str((params or {}).get("threshold") or DEFAULT_RULE)
        contents = [_content(image) for image in model_input["image"]]
        # As files: of some DICOM, the pixels are read by another process.
        with tempfile.TemporaryDirectory(prefix="films-") as folder:
            paths = []
            for row, content in enumerate(contents):
                if isinstance(content, bytes):
                    path = Path(folder) / str(row)
                    path.write_bytes(content)
                    paths.append(str(path))
            try:
                outcomes = list(self._predictor(paths, rule))
            except ThresholdError:
                known = ", ".join(sorted(self._predictor.thresholds))
                raise MlflowException.invalid_parameter_value(f"threshold {rule!r} is none of {known}") from None
        answers = iter(outcomes)
        told = []
        for content in contents:
            outcome = next(answers) if isinstance(content, bytes) else Refusal("", content)
            refused = outcome.reason if isinstance(outcome, Refusal) else None
            findings = None if isinstance(outcome, Refusal) else _told(outcome.findings)
            told.append({"findings": findings, "refused": refused, "threshold": rule})
        return told


def _content(image: Any) -> bytes | str:
    """The content of a film's file, or why there is none."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if not isinstance(image, str) or not image.strip():
        return f"there is no film in this row; {_SEND_FILE}"
    try:
        return base64.b64decode("".join(image.split()), validate=True)
    except (binascii.Error, ValueError):
        return f"this is not base64; {_SEND_FILE}"


def _told(findings: dict[str, Any]) -> dict[str, Any]:
    from cxr_core.scorecard import finite

    return {
        label: {"probability": of.probability, "threshold": finite(of.threshold), "above": of.above}
        for label, of in findings.items()
    }


set_model(ServedModel())
