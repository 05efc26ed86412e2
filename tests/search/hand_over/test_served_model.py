"""The MLflow model: loaded as MLflow loads it, and asked as its server asks it."""

import base64
import io
import json
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from PIL import Image

from cxr_core.predict import Prediction, Predictor
from tests.cxr_core.predicted_films import content, dicom, photograph, picture


@pytest.fixture(scope="module")
def served(finals):
    return mlflow.pyfunc.load_model(str(finals.model / "mlflow"))


def encoded(data):
    return base64.b64encode(data).decode()


def ask(served, *images, **params):
    return served.predict(pd.DataFrame({"image": list(images)}), params=params or None)


def expected(finals, data, rule="youden"):
    path = finals.folder.parent / "asked"
    path.write_bytes(data)
    (outcome,) = Predictor.load(finals.model / "model.pt")([str(path)], rule)
    assert isinstance(outcome, Prediction)
    return outcome.findings["Pneumonia"]


def dicom_file(folder):
    dicom(picture(3).astype(np.uint16) * 16, folder / "film.dcm", BitsStored=12, HighBit=11)
    return (folder / "film.dcm").read_bytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "DICOM"])
@pytest.mark.parametrize("as_text", [True, False], ids=["base64", "bytes"])
def test_a_film_has_the_probability_that_the_predict_command_gives_it(finals, served, tmp_path, kind, as_text):
    data = dicom_file(tmp_path) if kind == "DICOM" else content(kind)
    (row,) = ask(served, encoded(data) if as_text else data)
    finding = row["findings"]["Pneumonia"]
    wanted = expected(finals, data)
    assert row["refused"] is None
    assert finding["probability"] == pytest.approx(wanted.probability, rel=1e-5)
    assert (finding["threshold"], finding["above"]) == (wanted.threshold, wanted.above)


def test_what_is_no_film_is_refused_in_its_row_and_disturbs_no_other(finals, served):
    photo = io.BytesIO()
    Image.fromarray(photograph()).save(photo, "PNG")
    good = content("PNG")
    rows = ask(
        served, encoded(good), encoded(photo.getvalue()), "§ no base64 §", "", encoded(b"%PDF-1.7"), encoded(good)
    )
    assert [row["refused"] is None for row in rows] == [True, False, False, False, False, True]
    reasons = [row["refused"] for row in rows[1:5]]
    for reason, said in zip(reasons, ("a colour picture", "not base64", "no film in this row", "DICOM"), strict=True):
        assert said in reason
        assert "give " in reason
    assert all(row["findings"] is None for row in rows[1:5])
    assert rows[0]["findings"] == rows[5]["findings"]
    json.dumps(rows, allow_nan=False)


def test_the_rule_of_the_thresholds_is_a_parameter(finals, served):
    (row,) = ask(served, encoded(content("PNG")), threshold="half")
    assert row["threshold"] == "half"
    assert row["findings"]["Pneumonia"]["threshold"] == 0.5
    with pytest.raises(MlflowException, match=r"threshold 'twice' is none of f1, half, .*youden"):
        ask(served, encoded(content("PNG")), threshold="twice")


def test_a_request_without_the_column_is_refused_by_the_signature(served):
    with pytest.raises(MlflowException, match="image"):
        served.predict(pd.DataFrame({"film": ["x"]}))


def test_the_signature_tells_column_parameter_and_findings(finals):
    signature = Model.load(str(finals.model / "mlflow")).signature
    assert signature.inputs.to_dict() == [{"type": "string", "name": "image", "required": True}]
    assert [(param["name"], param["default"]) for param in signature.params.to_dict()] == [("threshold", "youden")]
    findings, refused, rule = signature.outputs.to_dict()
    assert set(findings["properties"]["Pneumonia"]["properties"]) == {"probability", "threshold", "above"}
    assert (refused["name"], rule["name"]) == ("refused", "threshold")


def test_the_input_example_is_a_drawn_film_that_is_answered(finals, served):
    folder = str(finals.model / "mlflow")
    example = Model.load(folder).load_input_example(folder)
    (row,) = served.predict(example)
    assert row["refused"] is None
    film = np.asarray(Image.open(io.BytesIO(base64.b64decode(example["image"].iloc[0]))))
    own = [films for name, films in finals.arrays.items() if name.endswith("images")]
    assert film.shape == (128, 128)
    assert film.shape != own[0].shape[1:]


@pytest.fixture(scope="module")
def alone(finals, tmp_path_factory):
    """Modules that a process has loaded, by where from, after answering with the model and nothing else at hand."""
    script = """
import json, sys, pandas, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
(row,) = model.predict(pandas.DataFrame({"image": [sys.argv[2]]}))
places = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
print(json.dumps({"row": row, "places": places}))
"""
    folder = tmp_path_factory.mktemp("elsewhere")
    film = dicom_file(folder)
    command = [sys.executable, "-P", "-c", script, str(finals.model / "mlflow"), encoded(film)]
    answer = subprocess.run(command, cwd=folder, env={"PATH": "", "HOME": str(folder)}, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


def test_the_model_needs_no_checkout_and_none_of_the_search(finals, alone):
    assert alone["row"]["refused"] is None
    assert Path(alone["places"]["cxr_core"]).is_relative_to(finals.model / "mlflow")
    assert not {"search", "ray", "optuna", "captum"} & {name.partition(".")[0] for name in alone["places"]}


def test_every_package_that_the_code_imports_is_in_the_requirements(finals, alone):
    """Those of the model's own modules: what a package needs itself, it requires itself."""
    import ast

    listed = (finals.model / "mlflow" / "requirements.txt").read_text().split()
    names = {line.partition("==")[0].lower() for line in listed}
    assert all("==" in line and "+" not in line for line in listed)
    own = [Path(place) for place in alone["places"].values() if place and "/mlflow/code/" in place]
    imported = {
        name.partition(".")[0]
        for path in [*own, finals.model / "mlflow" / "served_model.py"]
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    used = imported & {name.partition(".")[0] for name in alone["places"]}
    needed = {
        dist.lower()
        for name in used - set(sys.stdlib_module_names) - {"cxr_core"}
        for dist in packages_distributions().get(name, [name])
    }
    assert {"torch", "pydicom", "pillow", "numpy"} <= needed
    assert {"mlflow" if name.startswith("mlflow") else name for name in needed} <= names


def test_no_place_of_this_machine_and_no_registry_is_in_what_is_passed_on(finals):
    places = [str(finals.folder.parents[1]).encode(), str(Path(__file__).parents[3]).encode()]
    for path in finals.model.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert not [place for place in places if place in path.read_bytes()], path
    for name in ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt"):
        text = (finals.model / "mlflow" / name).read_text()
        assert "://" not in text
        assert "index" not in text
