"""MLflow beside real searches: rebuilt from a study, dying under a search, and as a browser shows it."""

import re
import signal
import sys
import time

import pytest
from mlflow import MlflowClient

from tests.end_to_end.browser import CHROMIUM, Browser
from tests.end_to_end.conftest import Search, finish
from tests.end_to_end.mlflow_server import MlflowServer
from tests.end_to_end.test_search import assert_mlflow_agrees


@pytest.fixture
def server(tmp_path):
    server = MlflowServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_films):
    """One undisturbed search that several tests look at."""
    search = Search(tmp_path_factory.mktemp("shown"), few_films)
    code, _, err = search.run("--trials", "6")
    assert code == 0, err
    return search


def synchronise(search, *options):
    return search.python([sys.executable, "-m", "search.mlflow_sync", "quick", *options])


def everything(uri, database=None):
    """All that an MLflow has of the study: runs by name, with states, parameters, tags and each metric's points.

    The points are read from the server's database: hundreds of requests take long.
    """
    client = MlflowClient(uri)
    inside = MlflowClient(f"sqlite:///{database}") if database else client
    runs = client.search_runs([client.get_experiment_by_name("quick").experiment_id])
    return {
        (run.info.run_name, run.info.status): (
            run.data.params,
            {key: value for key, value in run.data.tags.items() if key != "mlflow.parentRunId"},
            {key: _points(inside, run, key) for key in run.data.metrics},
            sorted(item.path for item in client.list_artifacts(run.info.run_id)),
        )
        for run in runs
    }


def _points(client, run, key):
    return [(point.step, point.value, point.timestamp) for point in client.get_metric_history(run.info.run_id, key)]


def test_an_empty_server_is_filled_from_the_study_and_a_second_time_changes_nothing(finished, server):
    code, out, err = finish(synchronise(finished, "--mlflow", server.uri))
    assert code == 0, err
    epochs = sum(len(trial.epochs) for trial in finished.study.trials())
    assert out.startswith(f"quick: {epochs} epochs added")
    assert_mlflow_agrees(finished, server.uri)
    before = everything(server.uri, server.database)
    code, out, err = finish(synchronise(finished, "--mlflow", server.uri))
    assert code == 0, err
    assert out.startswith("quick: 0 epochs added")
    assert everything(server.uri, server.database) == before


def test_what_is_rebuilt_is_what_the_search_itself_had_written(finished, server):
    assert finish(synchronise(finished, "--mlflow", server.uri))[0] == 0
    rebuilt, written = everything(server.uri, server.database), everything(finished.study.facts["mlflow"])
    assert set(rebuilt) == set(written)
    for run, (params, tags, metrics, artifacts) in written.items():
        assert rebuilt[run][0] == params
        assert rebuilt[run][1] == tags
        assert set(rebuilt[run][2]) == set(metrics)
        assert rebuilt[run][3] == artifacts


def test_a_rebuilding_killed_in_the_middle_again_and_again_leaves_nothing_twice(finished, server):
    client = MlflowClient(server.uri)
    for runs in (1, 3, 5):
        process = synchronise(finished, "--mlflow", server.uri)
        while process.poll() is None and _count_runs(client) < runs:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, _, err = finish(synchronise(finished, "--mlflow", server.uri))
    assert code == 0, err
    assert_mlflow_agrees(finished, server.uri)
    rebuilt = everything(server.uri, server.database)
    for _, _, metrics, _ in rebuilt.values():
        for points in metrics.values():
            steps = [step for step, _, _ in points]
            assert steps == sorted(set(steps))
    assert all(params for params, _, _, _ in rebuilt.values())


def _count_runs(client):
    experiment = client.get_experiment_by_name("quick")
    return len(client.search_runs([experiment.experiment_id])) if experiment else 0


def test_a_server_that_does_not_answer_is_a_preflight_failure(finished):
    code, _, err = finish(synchronise(finished, "--mlflow", "http://127.0.0.1:9"))
    assert code == 3
    assert "http://127.0.0.1:9: the server does not answer" in err


def test_a_study_that_does_not_exist_is_a_mistake_in_the_command(finished):
    code, _, err = finish(finished.python([sys.executable, "-m", "search.mlflow_sync", "nowhere"]))
    assert code == 2
    assert "nowhere" in err
    assert "there is no study here" in err


@pytest.mark.parametrize(
    ("seconds", "trials"), [(10, 14), pytest.param(60, 60, marks=pytest.mark.slow)], ids=["10 s", "60 s"]
)
def test_a_server_that_is_gone_for_a_while_has_everything_once_in_the_end(search, server, seconds, trials):
    process = search.start("--mlflow", server.uri, "--trials", str(trials))
    search.wait_for_epochs(3, process)
    gone = time.time()
    server.kill()
    time.sleep(seconds)
    back = time.time()
    server.start()
    code, _, err = finish(process, 300 + 5 * seconds)
    assert code == 0, err
    assert "mlflow_sync" not in err  # nothing is left to be done by hand
    assert_mlflow_agrees(search, server.uri)
    assert any(gone < epoch.at < back for trial in search.study.trials() for epoch in trial.epochs)


def test_the_run_of_a_killed_search_is_not_left_running(search, server):
    process = search.start("--mlflow", server.uri)
    search.wait_for_epochs(2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    client = MlflowClient(server.uri)
    for _ in range(600):
        experiment = client.get_experiment_by_name("quick")
        runs = client.search_runs([experiment.experiment_id]) if experiment else []
        if runs and not any(run.info.status == "RUNNING" for run in runs):
            break
        time.sleep(0.1)
    assert {run.info.status for run in runs if "cxr.trial" not in run.data.tags} == {"KILLED"}
    assert {run.info.status for run in runs if "cxr.trial" in run.data.tags} == {"SCHEDULED"}


# In a browser


@pytest.fixture(scope="module")
def shown(finished, tmp_path_factory):
    """The search's own database behind MLflow's pages."""
    if not CHROMIUM:
        pytest.skip("there is no chromium to look at MLflow's pages with")
    folder = tmp_path_factory.mktemp("browser")
    server = MlflowServer(folder, finished.folder / "studies" / "mlflow.db")
    browser = Browser(folder / "profile")
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("quick").experiment_id
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}
    yield browser, f"{server.uri}/#/experiments/{experiment}/runs", runs
    browser.close()
    server.kill()


def has(*words):
    """A script: whether the page shows all these words."""
    return " && ".join(f"document.body.innerText.includes({word!r})" for word in words)


def names_of(finished):
    winner = finished.study.winner()
    return f"trial {winner.number:03d} {winner.flat['model']}"


def test_the_experiments_page_nests_the_trials_under_their_study(finished, shown):
    browser, page, runs = shown
    browser.open(page)
    browser.wait_for(has("quick", "7 matching runs"))
    assert len(runs) == 7
    assert names_of(finished) not in browser.text  # folded away below the study's run
    cell = "[...document.querySelectorAll('.ag-cell a')].find(link => link.innerText == 'quick')?.closest('.ag-cell')"
    browser.wait_for(f"(button => button && (button.click(), true))({cell}?.querySelector('button'))")
    browser.wait_for(has(*(name for name in runs if name != "quick")))


def test_the_studys_page_shows_the_best_so_far_and_how_to_go_on(finished, shown):
    browser, page, runs = shown
    browser.open(f"{page}/{runs['quick']}")
    browser.wait_for(has("best so far", f"{names_of(finished)}: {finished.study.winner().value:.4f}"))
    assert f"python -m search.run --study {finished.study.folder} --resume" in browser.text
    browser.wait_for(has("search/best_auroc_macro", "search/trials_full", "search/cpu_hours"))


def test_a_trials_page_shows_its_learning_curves(finished, shown):
    browser, page, runs = shown
    browser.open(f"{page}/{runs[names_of(finished)]}/model-metrics")
    browser.wait_for(has("train_loss"))
    browser.wait_for("document.querySelectorAll('.js-plotly-plot .scatterlayer path').length >= 3")
    browser.open(f"{page}/{runs[names_of(finished)]}")
    browser.wait_for(has("quick", "val_auroc_macro", f"--explain {finished.study.winner().number}"))


def test_the_report_and_the_table_of_labels_open_from_the_artifacts(finished, shown):
    browser, page, runs = shown
    browser.open(f"{page}/{runs['quick']}/artifacts/report.html")
    inside = "document.querySelector('iframe') && document.querySelector('iframe').src.length"
    browser.wait_for(inside)
    browser.open(f"{page}/{runs[names_of(finished)]}/artifacts/per_label.json")
    last = finished.study.winner().epochs[-1].auroc["Pneumonia"]
    browser.wait_for(has("View as table", "Pneumonia", f"{last:.6f}"[:-1]))
    assert re.search(r"^epoch$", browser.text, re.M)
