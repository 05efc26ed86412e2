"""The command that finds out how good the finalists are, where nothing has to be trained for it."""

import errno
import json
import logging
import os
import signal

import pytest

from search.exit_codes import DONE, KILLED, NO_VALID_TRIAL, PREFLIGHT, STOPPED, USAGE
from search.finalize import main
from search.finals.record import read_record
from search.finals.reserve import hold_finals
from search.placement import Resources
from search.status import main as status
from search.study import Study
from tests.search.conftest import SPACE
from tests.search.small_study import new_study, train


@pytest.fixture
def study(tmp_path, make_space, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cxr_core.console.show_log", lambda *packages: None)  # a handler would outlive this test
    monkeypatch.chdir(tmp_path)
    return new_study(tmp_path, make_space(SPACE))


@pytest.fixture
def study_of(tmp_path, make_space, monkeypatch):
    """The same with what a test sets in the space."""

    def make(*overrides):
        monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("cxr_core.console.show_log", lambda *packages: None)
        monkeypatch.chdir(tmp_path)
        return new_study(tmp_path, make_space(SPACE, *overrides))

    return make


@pytest.fixture
def finalize(capsys):
    """Exit code, standard output and standard error of a command line."""

    def run(*words):
        code = main([*map(str, words), "--no-model"])  # see hand_over/
        return code, *capsys.readouterr()

    return run


def test_a_study_that_is_not_there_is_refused_and_nothing_is_left_behind(study, tmp_path, finalize):
    before = sorted((tmp_path / "studies").iterdir())
    code, _, err = finalize("other")
    assert code == USAGE
    assert "there is no study here" in err
    assert sorted((tmp_path / "studies").iterdir()) == before


def test_a_running_study_is_refused(study, finalize):
    train(study)
    with Study.lock(study.folder):
        code, _, err = finalize("sealed")
    assert code == USAGE
    assert "running in another process" in err


def test_a_study_without_a_full_trial_has_no_finalists(study, finalize):
    code, _, err = finalize("sealed")
    assert code == NO_VALID_TRIAL
    assert "no trial was trained in full" in err
    assert "test_openings" not in Study(study.folder).facts


def test_films_that_are_not_the_studys_are_refused_before_anything_is_opened(study, tmp_path, finalize):
    train(study)
    (tmp_path / "pneumoniamnist.npz").unlink()
    code, _, err = finalize("sealed", "--seeds", 1)
    assert code == PREFLIGHT
    assert "pneumoniamnist.npz" in err
    assert "test_openings" not in Study(study.folder).facts


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--top", "0"], "--top must be 1 or more"),
        (["--seeds", "0"], "--seeds must be 1 or more"),
        (["--reopen-test", " "], "needs a reason"),
        (["--concurrent", "0"], "--concurrent must be 1 or more"),
    ],
)
def test_a_mistaken_option_is_named(words, why, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["sealed", *words])
    assert stop.value.code == USAGE
    assert why in capsys.readouterr().err


def test_the_result_is_told_again_without_opening_the_split_again(study, finalize):
    for seed in (0, 1):
        train(study, seed)
    code, out, _ = finalize("sealed", "--seeds", 1, "--json")
    assert code == DONE
    (opening,) = Study(study.folder).facts["test_openings"]
    before = {path: path.stat().st_mtime_ns for path in (study.folder / "test").iterdir()}
    assert finalize("sealed", "--seeds", 1, "--json")[:2] == (DONE, out)
    assert finalize("sealed", "--seeds", 1, "--json", "--reopen-test", "needlessly")[:2] == (DONE, out)
    assert {path: path.stat().st_mtime_ns for path in (study.folder / "test").iterdir()} == before
    assert Study(study.folder).facts["test_openings"] == [opening]
    told = json.loads(out)
    assert told.pop("report") == str(study.folder / "report.html")
    assert told.pop("model") is None
    assert told.pop("ensemble") == json.loads((study.folder / "ensemble.json").read_text())
    assert told.pop("refit") == ""
    assert told == json.loads((study.folder / "finalists.json").read_text())
    assert {row["trial"] for row in told["finalists"]} == {0, 1}
    assert told["openings"] == [opening]


def test_finals_are_told_again_at_the_size_they_were_begun_with(study, finalize):
    """As a search holds them, of its reserve: the defaults would train more and open the split once more."""
    for seed in (0, 1):
        train(study, seed)
    code, out, err = finalize("sealed", "--top", 1, "--seeds", 1, "--json")
    assert code == DONE, err
    assert finalize("sealed", "--json")[:2] == (DONE, out)
    assert len(Study(study.folder).facts["test_openings"]) == 1


def test_fewer_finalists_need_no_second_opening(study, finalize):
    for seed in (0, 1):
        train(study, seed)
    finalize("sealed", "--seeds", 1)
    code, out, _ = finalize("sealed", "--seeds", 1, "--top", 1, "--json")
    assert code == DONE
    assert len(json.loads(out)["finalists"]) == 1
    assert len(Study(study.folder).facts["test_openings"]) == 1


def test_a_second_opening_needs_a_reason_and_is_counted(study, finalize):
    train(study)
    assert finalize("sealed", "--seeds", 1)[0] == DONE
    train(study, seed=1)
    code, out, err = finalize("sealed", "--seeds", 1)
    assert code == USAGE
    assert not out
    assert "the test split was opened once, on 20" in err
    assert "--reopen-test REASON" in err
    assert len(Study(study.folder).facts["test_openings"]) == 1
    code, out, _ = finalize("sealed", "--seeds", 1, "--reopen-test", "a reviewer asked")
    assert code == DONE
    assert "The test split was opened 2 times." in out
    openings = Study(study.folder).facts["test_openings"]
    assert [opening["trials"] for opening in openings] == [[0], [1]]
    assert openings[1]["reason"] == "a reviewer asked"
    train(study, seed=2)
    assert "was opened 2 times, last on 20" in finalize("sealed", "--seeds", 1)[2]


def test_missing_seeds_are_refused_before_they_are_trained_if_the_split_was_opened(study, finalize):
    train(study)
    finalize("sealed", "--seeds", 1)
    code, _, err = finalize("sealed", "--seeds", 2)
    assert code == USAGE
    assert "--reopen-test REASON" in err
    assert len(Study(study.folder).trials()) == 1


def test_an_evaluation_that_was_killed_goes_on_without_a_second_opening(study, finalize):
    for seed in (0, 1):
        train(study, seed)
    _, whole, _ = finalize("sealed", "--seeds", 1, "--json")
    (study.folder / "test" / "scores-00001.npz").unlink()
    (study.folder / "finalists.json").unlink()
    code, out, _ = finalize("sealed", "--seeds", 1, "--json")
    assert (code, out) == (DONE, whole)
    assert len(Study(study.folder).facts["test_openings"]) == 1


def test_what_an_earlier_version_told_is_told_again(study, finalize):
    for seed in (0, 1):
        train(study, seed)
    finalize("sealed", "--seeds", 1)
    files = [study.folder / name for name in ("finalists.json", "ensemble.json")]
    told = [json.loads(file.read_text()) for file in files]
    for file, record in zip(files, told, strict=True):
        file.write_text(json.dumps({**record, "format": 1, "gap": {"value": 0.0, "low": 0.0, "high": 0.0}}))
    assert finalize("sealed", "--seeds", 1)[0] == DONE
    assert [json.loads(file.read_text())["gap"] for file in files] == [record["gap"] for record in told]
    assert len(Study(study.folder).facts["test_openings"]) == 1


def test_a_resumed_search_goes_on_with_finals_that_were_killed_after_the_opening(study, finalize, monkeypatch, caplog):
    """No finalist was added since, so that the opening is still theirs."""
    for seed in (0, 1):
        train(study, seed)
    caplog.set_level(logging.INFO, "search")
    with monkeypatch.context() as killed:
        killed.setattr("search.finals.session.write_record", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        code, _, err = finalize("sealed", "--seeds", 1)
    assert (code, read_record(study.folder)) == (KILLED, None), err
    resumed = hold_finals(Study(study.folder), 0.2, Resources(concurrent=1))
    assert resumed.record == read_record(study.folder)
    assert len(Study(study.folder).facts["test_openings"]) == 1
    assert hold_finals(Study(study.folder), 0.2, Resources(concurrent=1)) is None  # it is done
    assert "the test split was opened before" in caplog.text


@pytest.mark.parametrize("times", [1, 2])
def test_a_full_disk_stops_the_telling_and_the_same_command_goes_on(study, finalize, monkeypatch, times):
    for seed in (0, 1):
        train(study, seed)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr("search.report.write_report", full)
        for _ in range(times):
            code, _, err = finalize("sealed", "--seeds", 1)
            assert (code, "free some first" in err) == (STOPPED, True), err
    assert finalize("sealed", "--seeds", 1)[0] == DONE
    assert len(Study(study.folder).facts["test_openings"]) == 1


def test_a_person_is_shown_each_finalist_and_what_their_difference_means(study, finalize):
    trials = [train(study, seed) for seed in (0, 1)]
    _, out, _ = finalize("sealed", "--seeds", 1)
    record = json.loads((study.folder / "finalists.json").read_text())
    for row, trial in zip(record["finalists"], sorted(trials, key=lambda t: -t.value), strict=True):
        assert row["trial"] == trial.number
        assert row["validation"]["mean"] == pytest.approx(trial.value, abs=1e-6)
        assert f"{row['test']['mean']:.4f} [{row['test']['low']:.4f}, {row['test']['high']:.4f}]" in out
    assert record["sentence"] in out
    assert "The test split was opened once." in out
    assert "Optimism gap of the winner" in out


def test_a_search_by_log_loss_ends_with_the_least_of_it(study_of, finalize):
    study = study_of("objective={metric: log_loss, direction: minimize}")
    trials = [train(study, seed) for seed in range(3)]
    code, out, err = finalize("sealed", "--seeds", 1, "--top", 2, "--json")
    assert code == DONE, err
    told = json.loads(out)
    losses = {trial.number: trial.epochs[-1].metrics["log_loss"] for trial in trials}
    best = sorted(losses, key=losses.get)
    assert [row["trial"] for row in told["finalists"]] == best[:2]
    assert told["winner"] == told["delivered"] == best[0]
    assert told["finalists"][0]["validation"]["mean"] == pytest.approx(losses[best[0]], abs=1e-5)
    assert told["ensemble"]["validation"]["value"] <= losses[best[0]] + 1e-6
    gain = told["ensemble"]["gain"]["validation"]["delivered"]
    assert gain["value"] == pytest.approx(losses[best[0]] - told["ensemble"]["validation"]["value"], abs=1e-5)


def test_tie_breakers_choose_finalists_and_winner_among_those_within_noise(study_of, finalize):
    study = study_of("objective.tie_breakers=[stressed_auroc_macro]")
    trials = [train(study, seed) for seed in range(4)]
    code, out, err = finalize("sealed", "--seeds", 1, "--top", 2, "--json")
    assert code == DONE, err
    told = json.loads(out)
    stressed = {trial.number: trial.epochs[-1].metrics["stressed_auroc_macro"] for trial in trials}
    finalists = {row["trial"] for row in told["finalists"]}
    assert told["winner"] == max(finalists, key=stressed.get)
    assert "the tie-breaker stressed_auroc_macro decides" in told["tie"]
    page = (study.folder / "report.html").read_text()
    assert f"Chosen among 2 finalists on validation: trial {told['winner']}" in page


def test_a_search_under_stress_ends_with_who_stands_it_best(study_of, finalize):
    study = study_of("objective={metric: stressed_auroc_macro}")
    trials = [train(study, seed) for seed in range(3)]
    code, out, err = finalize("sealed", "--seeds", 1, "--json")
    assert code == DONE, err
    told = json.loads(out)
    stressed = {trial.number: trial.epochs[-1].metrics["stressed_auroc_macro"] for trial in trials}
    assert told["winner"] == max(stressed, key=stressed.get)
    assert told["metric"] == "auroc_macro"
    assert told["tie"].startswith("The search improved stressed_auroc_macro, which chooses")


def test_status_tells_who_won_the_finals(study, finalize, capsys):
    train(study)
    train(study, seed=1)
    assert finalize("sealed", "--seeds", 1, "--top", 2)[0] == DONE
    assert status(["sealed"]) == DONE
    shown = " ".join(capsys.readouterr().out.split())
    assert "finals Best of 2 finalists on validation: trial" in shown
