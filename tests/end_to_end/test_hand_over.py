"""A search, its finals, and a server that answers with what they hand over."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from tests.end_to_end.conftest import Search, finish
from tests.end_to_end.mlflow_server import MlflowServer
from tests.end_to_end.test_finalize import end

ONE = ["budget.trials=1", "asha.mode=none", "space.model=small_cnn", "space.epochs=2"]


@pytest.fixture(scope="module")
def finals(tmp_path_factory, few_films):
    """A study of one trial after `search.finalize`, and what that printed."""
    search = Search(tmp_path_factory.mktemp("handed"), few_films)
    code, _, err = search.run(*(word for key in ONE for word in ("--set", key)))
    assert code == 0, err
    process = search.python([sys.executable, "-m", "search.finalize", "quick", "--seeds", "1"])
    try:
        code, out, err = finish(process)
    finally:
        end(process)
    assert code == 0, err
    return search, out


@pytest.fixture(scope="module")
def server(finals):
    """The address of a server, started by the command that the finals printed, with another port."""
    search, out = finals
    (line,) = [line for line in out.splitlines() if line.startswith("serve ")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = line.removeprefix("serve").split()
    assert command[:3] == ["mlflow", "models", "serve"]
    command = [sys.executable, "-m", *command[:-1], str(port)]
    # The environment's commands are at hand, as after `activate`; the checkout is not.
    env = {key: value for key, value in search.env.items() if key != "PYTHONPATH"}
    env["PATH"] = f"{os.path.dirname(sys.executable)}:{env['PATH']}"
    log = (search.folder / "serve.log").open("wb")
    process = subprocess.Popen(command, cwd=search.folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1)
                break
            except OSError:
                assert process.poll() is None, (search.folder / "serve.log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()


def post(address, records, **more):
    body = json.dumps({"dataframe_records": records, **more}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=60).read())["predictions"]


@pytest.fixture(scope="module")
def film(finals):
    with np.load(finals[0].films) as archive:
        Image.fromarray(archive["test_images"][0]).resize((128, 128)).save(finals[0].folder / "film.png")
    return finals[0].folder / "film.png"


def test_a_served_film_has_the_probability_that_the_predict_command_prints(finals, server, film):
    search, _ = finals
    command = [sys.executable, "-m", "cxr_core.predict", "studies/quick/model/model.pt", str(film), "--json"]
    code, out, err = finish(search.python(command))
    assert code == 0, err
    printed = json.loads(out)["findings"]["Pneumonia"]
    (row,) = post(server, [{"image": base64.b64encode(film.read_bytes()).decode()}])
    answered = row["findings"]["Pneumonia"]
    assert answered["probability"] == pytest.approx(printed["probability"], rel=1e-5)
    assert (answered["threshold"], answered["above"]) == (printed["threshold"], printed["above"])


def test_what_is_no_film_is_refused_beside_a_film_that_is_answered(server, film):
    rows = post(
        server,
        [{"image": base64.b64encode(b"no film").decode()}, {"image": base64.b64encode(film.read_bytes()).decode()}],
        params={"threshold": "half"},
    )
    assert rows[0]["findings"] is None
    assert "neither PNG" in rows[0]["refused"]
    assert rows[1]["findings"]["Pneumonia"]["threshold"] == 0.5


def test_a_threshold_that_does_not_exist_is_the_requests_mistake(server, film):
    image = base64.b64encode(film.read_bytes()).decode()
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(server, [{"image": image}], params={"threshold": "twice"})
    assert refused.value.code == 400
    assert "none of f1, half" in refused.value.read().decode()


def test_the_export_command_and_the_finals_state_the_same_kind_of_agreement(finals, film):
    search, out = finals
    command = [sys.executable, "-m", "cxr_core.export", "studies/quick/model/model.pt", "--out", "again.onnx"]
    code, said, err = finish(search.python([*command, "--films", str(film)]))
    assert code == 0, err
    assert "agreement  on 1 film: probabilities differ by" in said
    assert "differs by" in out
    assert (search.folder / "again.onnx").stat().st_size == pytest.approx(
        (search.study.folder / "model" / "model.onnx").stat().st_size, rel=0.01
    )


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # mlflow of its own classes
def test_a_servers_registry_gives_the_model_back_to_whoever_asks_for_the_challenger(finals, film, tmp_path):
    search, _ = finals
    server = MlflowServer(tmp_path)
    try:
        for _ in range(2):  # the second time there is nothing to write
            command = [sys.executable, "-m", "search.mlflow_sync", "quick", "--mlflow", server.uri]
            code, _, err = finish(search.python(command))
            assert code == 0, err
        client = MlflowClient(server.uri, registry_uri=server.uri)
        (version,) = client.search_model_versions("name = 'quick'")
        assert client.get_model_version_by_alias("quick", "challenger").version == version.version
        mlflow.set_tracking_uri(server.uri)
        given_back = mlflow.pyfunc.load_model("models:/quick@challenger")
    finally:
        mlflow.set_tracking_uri(None)
        server.kill()
    image = base64.b64encode(film.read_bytes()).decode()
    local = mlflow.pyfunc.load_model(str(search.study.folder / "model" / "mlflow"))
    (row,), (expected,) = (model.predict(pd.DataFrame({"image": [image]})) for model in (given_back, local))
    assert row["findings"]["Pneumonia"] == expected["findings"]["Pneumonia"]
