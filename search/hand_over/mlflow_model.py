"""A saved network as a folder that MLflow serves: signature, input example, preprocessing and requirements inside."""

import base64
import importlib.metadata
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

import cxr_core
import search.mlflow_settings  # noqa: F401 - before mlflow
from cxr_core.checkpoint import Checkpoint
from cxr_core.data import DataName
from cxr_core.data.cache.resize import resize
from cxr_core.predict import DEFAULT_RULE, DISCLAIMER

_PACKAGES = (
    "filelock",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "pydicom",
    "python-gdcm",
    "rich",
    "scipy",
    "timm",
    "torch",
    "torchvision",
)
"""What reading a film and running a network take; the versions are those of this environment."""
_SIDE = 128
"""Pixels of the example's side, or the network's where that is more: large enough for every network to take it."""


def save_mlflow_model(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a folder that does not exist: the network of a checkpoint's file, and the code that runs it.

    Raises OSError, MlflowException.
    """
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    image = ColSpec(DataType.string, "image")
    rule = ParamSpec("threshold", DataType.string, DEFAULT_RULE)
    signature = ModelSignature(Schema([image]), _answers(checkpoint.config.task.labels), ParamSchema([rule]))
    with warnings.catch_warnings(), _quiet("mlflow"):
        warnings.simplefilter("ignore")
        pyfunc.save_model(
            str(folder),
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"checkpoint": str(checkpoint.path)},
            code_paths=[str(Path(cxr_core.__file__).parent)],
            signature=signature,
            input_example=pd.DataFrame({"image": [_example(checkpoint)]}),
            pip_requirements=requirements(),
            metadata={"labels": list(checkpoint.config.task.labels), "disclaimer": DISCLAIMER},
        )
    _forget_places(folder)


def _forget_places(folder: Path) -> None:
    """Leave out where on this machine the model's parts came from, which MLflow writes down and does not need."""
    from mlflow.models import Model

    model = Model.load(str(folder))
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
    model.save(str(folder / "MLmodel"))


def requirements() -> list[str]:
    """The packages that a served network needs, pinned to those of this environment."""
    # What follows a plus, such as cpu, is the build of one index; another one has the same version.
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in _PACKAGES]


def _answers(labels: tuple[str, ...]) -> Any:
    """The schema of what is answered for a film."""
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Object, Property

    finding = Object(
        [
            Property("probability", DataType.double),
            Property("threshold", DataType.double, required=False),
            Property("above", DataType.boolean, required=False),
        ]
    )
    findings = Object([Property(label, finding) for label in labels])
    return Schema(
        [
            ColSpec(findings, "findings", required=False),
            ColSpec(DataType.string, "refused", required=False),
            ColSpec(DataType.string, "threshold"),
        ]
    )


def _example(checkpoint: Checkpoint) -> str:
    """A film of nobody, drawn by the phantom: a model that is passed on must not hold a patient's."""
    source = DataName("phantom").open()
    film = resize(source.read(source.films["image"].iloc[0]), max(_SIDE, checkpoint.config.image_size))
    file = io.BytesIO()
    Image.fromarray(film).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without a library's own words about its own ways; what goes wrong is raised."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
