"""What a study tells of its search from another terminal, and of one trial's life."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from search.exit_codes import DONE, USAGE
from search.life import in_words, life, sparkline
from search.overview import Overview, describe, failures
from search.progress import Ended, Progress
from search.status import main
from search.study import Study
from search.trial import Outcome, Step
from tests.search.conftest import SPACE, Trainer, drawn, epoch_record, legs_on

TWO_GOALS = SPACE.replace(
    "objective: {metric: auroc_macro, direction: maximize}", "objective: {metrics: [auroc_macro, log_loss]}"
).replace("asha:", "searcher: {name: nsgaii}\nasha:")
WRITER = """
import sys, time
from pathlib import Path
from search.space import load_space
from search.study import Study
from tests.search.conftest import drawn, epoch_record

folder = Path(sys.argv[1])
with Study.lock(folder):
    study, space = Study(folder), load_space(folder / "space.yaml")
    print("locked", flush=True)
    sys.stdin.readline()
    for number in range(40):
        drawn(study, space)
        for epoch in range(1, 6):
            study.record(number, epoch_record(epoch, 0.5 + epoch / 100))
    print("written", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def search(make_space, make_study):
    """A search that was left after a number of epochs, or at its end, as its `Legs` and what trained it."""

    def make(*overrides, epochs=None, text=SPACE, **trainer):
        space = make_space(text, *overrides)
        workers = Trainer(**trainer)
        legs = legs_on(make_study(space), space, workers.clock, slots=workers.slots)
        if workers.run(legs, epochs=epochs):
            legs.close()
            legs.journal.note("ended", {"at": time.time(), "why": legs.stopping or "budget"})
        return legs

    return make


@pytest.fixture
def written(make_study, make_space):
    """A study that another process holds and writes: told to go on by a line, and it says when it has."""
    study = make_study(make_space())
    command = [sys.executable, "-c", WRITER, str(study.folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": Path(__file__).parents[2]}
    with subprocess.Popen(command, **pipes) as writer:
        assert writer.stdout.readline() == "locked\n"
        yield study.folder, writer
        writer.kill()


def tell(folder, capsys, *options):
    assert main([str(folder), *options]) == DONE
    return capsys.readouterr().out


def go_on(writer):
    writer.stdin.write("go on\n")
    writer.stdin.flush()


def test_a_search_whose_driver_holds_the_lock_is_running_and_else_stopped(written):
    folder, writer = written
    assert Overview(Study(folder)).state.word == "running"
    writer.kill()
    writer.wait()
    assert Overview(Study(folder)).state.word == "stopped"


def test_looking_at_the_lock_never_keeps_a_driver_out(make_study):
    folder = make_study().folder
    with Study.lock(folder):
        assert Study.is_running(folder)
    assert not Study.is_running(folder)
    with Study.lock(folder):
        pass


def test_a_study_can_be_read_while_another_process_writes_it(written):
    folder, writer = written
    study = Study(folder, follow=True)
    go_on(writer)
    seen = [len(Overview(study).trials)]
    while seen[-1] < 40 or len(study.trial(39).epochs) < 5:
        overview = Overview(study)
        seen.append(len(overview.trials))
        describe(overview, last=10)
        for trial in overview.trials:
            assert [epoch.epoch for epoch in trial.epochs] == list(range(1, len(trial.epochs) + 1))
    assert seen == sorted(seen)
    assert writer.stdout.readline() == "written\n"


def test_looking_leaves_the_study_as_it_was(search, capsys):
    folder = search(epochs=20).journal.folder
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.parent.rglob("*")}
    tell(folder, capsys)
    tell(folder, capsys, "--json")
    tell(folder, capsys, "--explain", "0")
    after = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.parent.rglob("*")}
    assert after == before


@pytest.mark.parametrize(
    ("why", "word"),
    [("budget", "ended"), ("time", "ended"), ("plateau", "ended"), ("SIGTERM", "stopped"), ("mistake", "stopped")],
)
def test_the_reason_of_an_end_says_whether_there_is_something_to_go_on_with(make_study, why, word):
    study = make_study()
    study.note("ended", {"at": time.time(), "why": why})
    assert Overview(study).state.word == word


def test_a_search_that_was_resumed_and_killed_is_not_taken_for_ended(make_study, make_space):
    study = make_study()
    study.note("ended", {"at": time.time(), "why": "budget"})
    drawn(study, make_space())
    assert Overview(study).state.word == "stopped"


def test_who_waits_and_at_which_place_is_what_the_search_itself_knows(search):
    legs = search("budget.trials=30", epochs=50)
    overview = Overview(Study(legs.journal.folder))
    waiting = [(place.trial.number, place.rung) for place in overview.waiting()]
    assert waiting == legs.rungs.waiting() != []
    for place in overview.waiting():
        theirs = legs.rungs.standing(place.trial.number, place.rung)
        assert (place.place, place.cohort, place.go_on) == (theirs.place, theirs.cohort, theirs.go_on)


def test_counts_are_those_of_the_search_but_a_dead_drivers_legs_are_interrupted(search):
    legs = search(epochs=25)
    counts = legs.counts()
    counts["interrupted"] += counts.pop("running")
    assert Overview(Study(legs.journal.folder)).counts() == counts


def test_trials_in_flight_run_only_while_the_driver_does(search):
    legs = search(epochs=25)
    folder = legs.journal.folder
    assert Overview(Study(folder)).running() == []
    with Study.lock(folder):
        assert [trial.number for trial in Overview(Study(folder)).running()] == sorted(legs.live)


def test_a_leg_of_an_earlier_session_is_interrupted_until_it_is_handed_out_again(search):
    legs = search(epochs=25)
    legs.journal.note("session", {"at": time.time(), "slots": 2, "gpus": 0.0})
    with Study.lock(legs.journal.folder):
        assert Overview(Study(legs.journal.folder)).counts()["interrupted"] == len(legs.live)


def test_the_budget_is_told_with_what_is_used_of_each_limit(search):
    legs = search("budget={trials: 30, time: 1h, gpu_hours: 2, target: 0.99, plateau: 9}", epochs=60)
    study = legs.journal
    study.note("seconds_used", 900.0)
    study.note("session", {"at": 0.0, "slots": 2, "gpus": 0.5})
    told = describe(Overview(Study(study.folder)), last=0)["budget"]
    assert told["trials"] == {"used": len(study.trials()), "of": 30}
    assert told["time"] == {"used": 900.0, "of": 3600.0}
    assert told["gpu_hours"] == {"used": pytest.approx(60 * 0.5 / 3600), "of": 2.0}
    assert told["target"] == {"used": study.winner().value, "of": 0.99}
    assert told["plateau"]["used"] == legs.budget.since_best


def test_the_json_object_has_the_winner_and_the_last_decisions(search, capsys):
    legs = search()
    told = json.loads(tell(legs.journal.folder, capsys, "--json", "--decisions", "3"))
    assert told["state"] == {"is": "ended", "why": "its trials are done"}
    assert told["winner"]["trial"] == legs.journal.winner().number
    assert len(told["decisions"]) == 3
    assert {decision["step"] for decision in told["decisions"]} == {"ended"}
    assert sum(told["counts"].values()) == 12


def test_several_objectives_are_told_as_their_pareto_front(make_space, make_study, capsys):
    study = make_study(make_space(TWO_GOALS))
    for auroc, loss in ((0.9, 0.5), (0.8, 0.3), (0.8, 0.6)):
        number = drawn(study, make_space(TWO_GOALS)).number
        record = epoch_record(1, auroc)
        study.record(number, replace(record, metrics={"auroc_macro": auroc, "log_loss": loss}))
        study.finish(number, Outcome.FULL)
    told = json.loads(tell(study.folder, capsys, "--json"))
    assert [row["trial"] for row in told["front"]] == [0, 1]
    assert told["winner"]["values"] == {"auroc_macro": 0.9, "log_loss": 0.5}
    assert "auroc_macro 0.8000, log_loss 0.3000" in tell(study.folder, capsys)


def test_failures_that_differ_in_figures_only_are_one(make_study, make_space):
    study = make_study()
    for epoch in (1, 4, 7):
        study.finish(drawn(study, make_space()).number, Outcome.DIVERGED, f"the loss became nan in epoch {epoch}")
    study.finish(drawn(study, make_space()).number, Outcome.ERROR, "KeyError: 'label'")
    found = failures(study.trials())
    assert [(failure.outcome, len(failure.trials)) for failure in found] == [("diverged", 3), ("error", 1)]
    assert found[0].reason == "the loss became nan in epoch 1"


def test_a_failure_is_told_with_the_path_of_its_traceback(make_study, make_space, capsys):
    study = make_study()
    number = drawn(study, make_space()).number
    study.finish(number, Outcome.ERROR, "KeyError: 'label'")
    study.trial_folder(number).mkdir()
    path = study.trial_folder(number) / "error.txt"
    path.write_text("Traceback")
    assert json.loads(tell(study.folder, capsys, "--json"))["failures"][0]["error"] == str(path)


def test_a_trial_that_waits_is_told_its_place_and_the_value_to_beat(search):
    legs = search(slots=1, epochs=4, value=lambda trial, epoch: 0.9 - 0.1 * trial)
    trial = legs.journal.trial(2)
    (waits,) = [decision for decision in trial.decisions if decision.step is Step.WAITS]
    said = "waits: place 3 of 3 at 10%, where 1 go on; 0.7000 against 0.9000 of trial 0, the last that goes on"
    assert in_words(trial, waits) == said


def test_a_lost_leg_is_told_with_the_epoch_it_goes_on_from(search):
    legs = search(epochs=5)
    number = min(legs.live)
    legs.process_lost(number, "its process died")
    trial = legs.journal.trial(number)
    done = len(trial.epochs)
    assert (
        in_words(trial, trial.decisions[-1]) == f"lost for the first time: its process died; goes on from epoch {done}"
    )


def test_every_decision_of_a_search_has_words(search):
    for trial in search("budget.trials=30").journal.trials():
        for decision in trial.decisions:
            assert decision.why in in_words(trial, decision)


def test_a_trial_is_compared_with_the_winner_and_the_winner_with_the_next_best(search):
    study = search("budget.trials=20").journal
    winner = study.winner()
    overview = Overview(Study(study.folder))
    other = next(trial for trial in study.trials() if trial.number != winner.number)
    told = life(overview, other)
    assert told["against"] == winner.number
    for key, (mine, theirs) in told["differs"].items():
        assert mine == other.flat.get(key) != theirs == winner.flat.get(key)
    assert {key: told["config"][key] for key in told["config"] if key not in told["differs"]}.items() <= (
        winner.flat.items()
    )
    assert life(overview, winner)["against"] not in (winner.number, None)


def test_the_life_of_a_trial_names_its_other_seeds_and_its_checkpoint(make_study, make_space):
    study = make_study()
    first = drawn(study, make_space())
    study.record(first.number, replace(epoch_record(1, 0.7), checkpoint="trials/00000/epoch-0001.pt"))
    study.finish(first.number, Outcome.FULL)
    second = study.add(first.flat, 1, "another seed", repeats=first.number)
    assert life(Overview(study), study.trial(0))["seeds"] == {second.number: None}
    assert life(Overview(study), second)["seeds"] == {first.number: 0.7}
    assert life(Overview(study), study.trial(0))["checkpoint"] is None
    path = study.trial_folder(0) / "epoch-0001.pt"
    path.parent.mkdir()
    path.touch()
    assert life(Overview(study), study.trial(0))["checkpoint"] == str(path)


def test_a_sparkline_rises_where_the_curve_does():
    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.3, 0.3]) == "▁▁"
    assert sparkline([]) == ""
    long = sparkline(list(range(1000)), width=20)
    assert len(long) == 20
    assert long[0] + long[-1] == "▁█"


def test_the_page_of_a_trial_shows_each_decision(search, capsys):
    legs = search()
    said = " ".join(tell(legs.journal.folder, capsys, "--explain", "3").split())
    for decision in legs.journal.trial(3).decisions:
        assert decision.why in said


def test_watching_ends_with_the_search(search, capsys):
    assert "its trials are done" in tell(search().journal.folder, capsys, "--watch")


def test_an_unknown_study_is_answered_with_those_there_are(make_study, monkeypatch, tmp_path, capsys):
    (tmp_path / "studies").mkdir()
    make_study().folder.rename(tmp_path / "studies" / "mine")
    monkeypatch.chdir(tmp_path)
    assert main(["yours"]) == USAGE
    assert "studies/yours: there is no study here; in studies/ there are: mine" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["12", "-1"])
def test_an_unknown_trial_is_answered_with_those_there_are(search, capsys, number):
    folder = search().journal.folder
    assert main([str(folder), f"--explain={number}"]) == USAGE
    assert f"there is no trial {number}; the study has trials 0 to 11" in capsys.readouterr().err


def test_a_study_without_any_trial_has_a_page(make_study, capsys):
    assert "no full trial yet" in tell(make_study().folder, capsys)


# What the driver shows


def test_the_drivers_table_counts_as_the_search_does(search):
    for epochs in (7, 40, 80):
        legs = search("budget.trials=30", epochs=epochs)
        progress = Progress(legs, "tiny")
        progress.ended.look()
        said = progress.summary()
        for what, count in legs.counts().items():
            assert f"{count} {what}" in said


def test_the_drivers_table_knows_the_winner_however_often_it_looked(search):
    legs = search("budget.trials=5", epochs=3)
    ended = Ended(legs)
    workers = Trainer()
    again = legs_on(legs.journal, legs.space, workers.clock, slots=2)
    for epochs in range(5, 60, 5):
        finished = workers.run(again, epochs=epochs)
        ended.look()
        assert ended.best == again.journal.winner()
        if finished:
            break
        again = legs_on(legs.journal, legs.space, workers.clock, slots=2)
    assert ended.best


def test_the_drivers_line_tells_budget_failures_and_every_objective(search):
    legs = search("budget={trials: 30, time: 1h, plateau: 9}", text=TWO_GOALS, epochs=60)
    number = min(legs.live)
    legs.failed(number, Outcome.DIVERGED, "the loss became nan")
    progress = Progress(legs, "tiny")
    progress.ended.look()
    said = progress.summary()
    assert "of 1h" in said
    assert "of 9 full trials without a better one" in said
    assert "1 failed" in said
    assert "left (until" in said
    assert f"best auroc_macro {legs.journal.winner().value:.4f}, log_loss" in said
    assert progress.ended.last_failure.number == number
