"""The report: one page from the study alone, whatever state the study is in."""

import math
from dataclasses import replace

import numpy as np
import pytest

from search.exit_codes import DONE, USAGE
from search.finals.record import describe, write_record
from search.finals.verdict import Scored, judge
from search.report import figures, main, write_report
from search.rungs import RungPolicy, Rungs
from search.space import Baseline
from search.study import Study
from search.trial import Outcome, Step
from tests.search.conftest import SPACE, drawn, epoch_record
from tests.search.report_page import Page

RUNGS = Rungs(RungPolicy((0.1, 0.5), 3))
MINIMISING = SPACE.replace("auroc_macro, direction: maximize", "log_loss, direction: minimize")
PLAIN = Baseline("plain", {"model": "small_cnn", "epochs": 4}, {})


@pytest.fixture
def space(make_space):
    return make_space()


@pytest.fixture
def study(make_study, space):
    return make_study(space)


def train(study, trial, *values, outcome=None, reason=""):
    """Give a trial an epoch for each value, and end it if an outcome is given."""
    for epoch, value in enumerate(values, 1):
        study.record(trial.number, epoch_record(epoch, value))
    if outcome:
        study.finish(trial.number, outcome, reason)
    return study.trial(trial.number)


def train_in_full(study, trial, last):
    values = [0.5 + (last - 0.5) * epoch / trial.schedule for epoch in range(1, trial.schedule + 1)]
    return train(study, trial, *values, outcome=Outcome.FULL)


def baseline(study):
    return study.add(PLAIN.flat, seed=0, why="baseline plain", baseline=PLAIN.name)


def propose(study, space):
    return drawn(study, space)


def test_the_page_needs_nothing_beside_it(study, space):
    train_in_full(study, propose(study, space), 0.8)
    page = Page(study)
    assert not [attrs for tag, attrs in page.tags if tag in ("link", "iframe", "img") or (tag == "script" and attrs)]
    assert "@import" not in page.source
    assert "url(http" not in page.source


def test_plotly_is_embedded_once_however_many_figures_there_are(study, space):
    train_in_full(study, propose(study, space), 0.8)
    page = Page(study)
    assert page.source.count("plotly.js v") == 1
    assert page.source.count("Plotly.newPlot(") > 3


def test_the_winner_and_its_value_are_the_first_thing_said(study, space):
    train_in_full(study, propose(study, space), 0.71)
    winner = train_in_full(study, propose(study, space), 0.8123)
    train(study, propose(study, space), 0.9, outcome=Outcome.PRUNED)
    page = Page(study)
    assert (
        f"Best of 2 full trials: trial 1 ({winner.flat['model']}), validation macro AUROC 0.8123." in page.first_screen
    )
    assert "Second is trial 0" in page.first_screen
    assert "0.1023 behind" in page.first_screen
    assert "best of 2 on the films it was chosen by, and is optimistic" in page.first_screen
    assert f"{winner.flat['lr']:.4g}" in page["winner"]


def test_a_single_full_trial_is_not_called_the_best_of_many(study, space):
    train_in_full(study, propose(study, space), 0.8)
    first = Page(study).first_screen
    assert "The only full trial: trial 0" in first
    assert "Best of" not in first
    assert "optimistic" not in first


def test_a_smaller_value_wins_where_the_objective_is_minimised(make_space, make_study):
    space = make_space(MINIMISING)
    study = make_study(space)
    train_in_full(study, propose(study, space), 0.4)
    train_in_full(study, propose(study, space), 0.3)
    page = Page(study)
    assert "trial 1" in page.first_screen
    assert "validation log_loss 0.3000" in page.first_screen
    assert "0.1000 behind" in page.first_screen
    assert page.column("trial") == ["1", "0"]


def test_a_baseline_that_wins_is_said_plainly(study, space):
    train_in_full(study, baseline(study), 0.9)
    train_in_full(study, propose(study, space), 0.8)
    first = Page(study).first_screen
    assert "trial 0 (recipe plain)" in first
    assert "A baseline wins: the search found nothing better than the recipe plain." in first


def test_the_best_baseline_is_named_even_if_it_is_not_second(study, space):
    train_in_full(study, baseline(study), 0.7)
    for last in (0.8, 0.9):
        train_in_full(study, propose(study, space), last)
    assert "The best baseline is trial 0 (recipe plain), 0.2000 behind." in Page(study).first_screen


def test_every_trial_stands_once_in_the_leaderboard_with_its_outcome(study, space):
    train_in_full(study, baseline(study), 0.7)
    for outcome in list(Outcome)[1:]:
        train(study, propose(study, space), 0.6, outcome=outcome, reason=f"because of {outcome}")
    train(study, propose(study, space), 0.6)
    page = Page(study)
    said = dict(zip(page.column("trial"), page.column("outcome"), strict=True))
    named = {**{outcome: outcome.value for outcome in Outcome}, Outcome.FOLD: "other fold"}
    ended = [f"{named[outcome]}: because of {outcome}" for outcome in list(Outcome)[1:]]
    assert said == {str(number): text for number, text in enumerate(["full", *ended, "not ended"])}
    assert len(page.column("trial")) == len(said)
    assert "1 not ended" in page.first_screen


def test_full_trials_lead_the_leaderboard_then_those_that_reached_higher_rungs(study, space):
    train(study, propose(study, space), outcome=Outcome.INFEASIBLE, reason="too small")
    train(study, propose(study, space), 0.9, outcome=Outcome.PRUNED)
    train(study, propose(study, space), 0.95, outcome=Outcome.PRUNED)
    train(study, propose(study, space), *[0.6] * 5, outcome=Outcome.PRUNED)
    train_in_full(study, propose(study, space), 0.55)
    page = Page(study)
    assert page.column("trial") == ["4", "3", "2", "1", "0"]
    assert page.column("epochs") == ["10/10", "5/10", "1/10", "1/10", "0/10"]
    assert page.column("macro AUROC")[-1] == "\N{EN DASH}"


def test_without_a_full_trial_the_page_says_how_to_go_on(make_space, make_study):
    space = make_space(SPACE, "budget.time=1h30m")
    study = make_study(space)
    train(study, propose(study, space), 0.55, 0.6)
    page = Page(study)
    assert "No trial has been trained in full, so there is no winner." in page.first_screen
    assert "2/10 epochs, validation macro AUROC 0.6000" in page.first_screen
    assert f"python -m search.run --study {study.name} --resume --time 3h" in page.first_screen
    assert "winner" not in page.sections


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.INFEASIBLE, Outcome.ERROR, Outcome.INFRASTRUCTURE])
def test_a_study_in_which_nothing_worked_has_a_page(study, space, outcome):
    train(study, propose(study, space), outcome=outcome, reason="it broke")
    page = Page(study)
    assert page.column("outcome") == [f"{outcome}: it broke"]
    assert "No trial has finished an epoch." in page["curves"]
    assert f"--study {study.name} --resume --trials 24" in page.first_screen


def test_a_study_without_any_trial_has_a_page(study):
    assert "no winner" in Page(study).first_screen


def test_a_label_without_positives_is_undefined_and_not_zero(study, space):
    trial = propose(study, space)
    for epoch in range(1, trial.schedule + 1):
        study.record(trial.number, replace(epoch_record(epoch, 0.7), auroc={"Pneumonia": None}))
    study.finish(trial.number, Outcome.FULL)
    assert "Pneumonia undefined (no positives) 0" in Page(study)["winner"]


def test_html_in_a_reason_is_shown_and_not_run(study, space):
    train(study, propose(study, space), outcome=Outcome.ERROR, reason="<script>alert(1)</script> & more")
    page = Page(study)
    assert "<script>alert" not in page.source
    assert page.column("outcome") == ["error: <script>alert(1)</script> & more"]


def test_synthetic_films_are_announced_and_real_ones_are_not(study):
    assert "Synthetic films." in Page(study).first_screen
    study.note("data", "nih:/films")
    assert "Synthetic" not in Page(study).source


def test_importance_is_not_claimed_from_few_trials(study, space):
    for value in (0.6, 0.7):
        train(study, propose(study, space), value, outcome=Outcome.PRUNED)
    assert "Too few trials: 2 of 2 searched trials can be compared" in Page(study)["importance"]


def test_importance_compares_searched_trials_at_their_first_rung_only(study, space):
    train_in_full(study, baseline(study), 0.7)
    train(study, propose(study, space), 0.6, 0.9, outcome=Outcome.PRUNED)
    train(study, propose(study, space), outcome=Outcome.DIVERGED)
    assert [trial.value for trial in figures.early_study(study, study.trials(), RUNGS).trials] == [0.6]


def test_the_parameter_that_decides_alone_leads_the_importances_and_passes_the_line_of_chance(study, space):
    for _ in range(20):
        trial = propose(study, space)
        train(study, trial, 0.7 - 0.1 * abs(math.log10(trial.flat["lr"]) + 3), outcome=Outcome.PRUNED)
    bars = figures.importances(figures.early_study(study, study.trials(), RUNGS)).data[0]
    assert bars.y[0] == "lr"
    assert bars.marker.color[0] != bars.marker.color[1]


def test_equal_values_have_no_importances(study, space):
    for _ in range(10):
        train(study, propose(study, space), 0.6, outcome=Outcome.PRUNED)
    assert figures.importances(figures.early_study(study, study.trials(), RUNGS)) is None


def test_epochs_that_pruned_trials_were_spared_count_as_saved(study, space):
    train_in_full(study, propose(study, space), 0.8)
    train(study, propose(study, space), 0.5, 0.6, outcome=Outcome.PRUNED)
    train(study, propose(study, space), 0.5, outcome=Outcome.DIVERGED)
    said = Page(study)["pruning"]
    assert "13 epochs were trained." in said
    assert "made them 21, and would have taken about 8s more" in said


def test_the_space_seed_and_commands_to_go_on_are_on_the_page(study):
    study.note("mlflow", "postgresql://me:secret@server/runs")
    page = Page(study)
    assert (study.folder / "space.yaml").read_text().splitlines()[0] in page["reproduce"]
    assert f"--study {study.name} --resume" in page["reproduce"]
    assert "mlflow ui --backend-store-uri postgresql://server/runs" in page["reproduce"]
    assert "secret" not in page.source


def test_a_study_that_was_set_aside_is_resumed_in_its_new_folder(study):
    aside = study.folder.with_name("study.20260101-120000")
    study.folder.rename(aside)
    assert "--study study.20260101-120000 --resume" in Page(Study(aside))["reproduce"]


def test_writing_the_report_leaves_the_study_as_it_was_and_nothing_else_behind(study, space):
    train_in_full(study, propose(study, space), 0.8)
    before = {path.name for path in study.folder.iterdir()}
    journal = (study.folder / "journal.log").read_bytes()
    write_report(study)
    assert (study.folder / "journal.log").read_bytes() == journal
    assert {path.name for path in study.folder.iterdir()} == before | {"report.html", "report.json"}


def test_the_command_takes_a_name_in_studies_or_a_folder(study, monkeypatch, tmp_path, capsys):
    (tmp_path / "studies").mkdir()
    study.folder.rename(tmp_path / "studies" / "mine")
    monkeypatch.chdir(tmp_path)
    assert main(["mine"]) == DONE
    assert main(["studies/mine"]) == DONE
    assert capsys.readouterr().out.split() == ["studies/mine/report.html"] * 2


def test_a_study_that_does_not_exist_is_the_users_mistake(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["nowhere"]) == USAGE
    assert "studies/nowhere: there is no study here" in capsys.readouterr().err


TWO_GOALS = SPACE.replace(
    "objective: {metric: auroc_macro, direction: maximize}", "objective: {metrics: [auroc_macro, log_loss]}"
).replace("asha:", "searcher: {name: nsgaii}\nasha:")
LIMITED = SPACE.replace("budget:", "constraints: {log_loss: {max: 0.5}}\nbudget:")


def reach(study, space, auroc, loss):
    """A full trial with these metrics at its end."""
    trial = propose(study, space)
    for epoch in range(1, trial.schedule + 1):
        record = epoch_record(epoch, auroc)
        study.record(trial.number, replace(record, metrics={"auroc_macro": auroc, "log_loss": loss}))
    return study.finish(trial.number, Outcome.FULL)


def test_with_several_objectives_the_front_is_named_and_the_first_objective_names_the_winner(make_space, make_study):
    space = make_space(TWO_GOALS)
    study = make_study(space)
    for auroc, loss in ((0.8, 0.3), (0.9, 0.5), (0.8, 0.6)):
        reach(study, space, auroc, loss)
    page = Page(study)
    assert "trial 1" in page.sections["winner"]
    assert "2 of 3 trials are on the Pareto front with log_loss" in page.first_screen
    assert "1 0.9000 0.5000" in page["front"]
    assert page.column("log_loss") == ["0.5000", "0.3000", "0.6000"]
    assert [", on the front" in outcome for outcome in page.column("outcome")] == [True, True, False]


def test_the_front_is_drawn_through_the_trials_that_no_other_beats(make_space, make_study):
    space = make_space(TWO_GOALS)
    study = make_study(space)
    full = [reach(study, space, auroc, loss) for auroc, loss in ((0.8, 0.3), (0.9, 0.5), (0.8, 0.6))]
    drawn_front = figures.front(full, study.front(), study.winner(), ["AUROC", "loss"])
    points = {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in drawn_front.data}
    assert points == {"beaten": [(0.6, 0.8)], "on the front": [(0.3, 0.8), (0.5, 0.9)], "winner": [(0.5, 0.9)]}


def test_one_objective_has_no_front(study, space):
    train_in_full(study, propose(study, space), 0.8)
    assert "front" not in Page(study).sections


def test_a_trial_that_violates_a_constraint_cannot_win_and_is_told_how_it_does(make_space, make_study):
    space = make_space(LIMITED)
    study = make_study(space)
    reach(study, space, 0.9, 0.6)
    reach(study, space, 0.8, 0.4)
    page = Page(study)
    assert "The only full trial: trial 1" in page.first_screen
    assert "1 of 2 full trials violate a constraint and cannot win." in page.first_screen
    assert "log_loss 0.6 is above 0.5" in page["constraints"]
    assert page.column("trial") == ["1", "0"]


def test_where_no_full_trial_keeps_the_constraints_there_is_no_winner(make_space, make_study):
    space = make_space(LIMITED)
    study = make_study(space)
    reach(study, space, 0.9, 0.6)
    page = Page(study)
    assert "None of 1 full trials keeps the constraints, so there is no winner." in page.first_screen
    assert "winner" not in page.sections


def test_other_seeds_of_a_configuration_show_its_spread_and_do_not_win(study, space):
    first = train_in_full(study, propose(study, space), 0.8)
    for seed, last in enumerate((0.82, 0.84), 1):
        train_in_full(study, study.add(first.flat, seed, "another seed", repeats=first.number), last)
    page = Page(study)
    assert "The only full trial: trial 0" in page.first_screen
    assert "3 of 3 0.8200 0.0200 0.8000 0.8400 0, 1, 2" in page["seeds"]
    assert page.column("from") == ["seed of 0", "seed of 0", "search"]


def test_stages_are_told_with_what_each_is_trained_on(make_space, make_study):
    space = make_space(SPACE, "asha={rungs: [0.25, 0.5], fidelity: data_share}")
    study = make_study(space)
    trial = study.add(propose(study, space).flat, 0, "drawn", stages=3)
    train(study, trial, *[0.6] * 12)
    page = Page(study)
    assert "28 px, 25% of the training patients; then 28 px, 50%" in page["curves"]
    assert "12/30" in page.column("epochs")


def test_training_time_is_told_by_what_became_of_the_trials(study, space):
    study.note("session", {"at": 0.0, "slots": 1, "gpus": 0.5})
    hour = 3600.0
    for seconds, outcome in ((3 * hour, Outcome.FULL), (hour, Outcome.PRUNED), (0.0, Outcome.INFEASIBLE)):
        trial = propose(study, space)
        if seconds:
            study.record(trial.number, epoch_record(1, 0.7, seconds))
        study.finish(trial.number, outcome)
    paid = Page(study)["paid"]
    assert "trained in full, searched 1 1 1.50 75 %" in paid
    assert "pruned 1 1 0.50 25 %" in paid
    assert "infeasible 1 0 0.00 0 %" in paid


def test_every_decision_stands_in_the_ledger_with_its_reason(study, space):
    trial = propose(study, space)
    study.decide(trial.number, Step.LAUNCHED, "starts", epoch=0)
    train(study, trial, 0.6)
    figures_of_it = {"rung": 0, "place": 3, "cohort": 4, "go_on": 1, "cutoff": 7, "epoch": 1}
    why = "place 3 of 4 at 10%, where 1 go on"
    study.decide(trial.number, Step.WAITS, why, value=0.6, cutoff_value=0.7, **figures_of_it)
    said = Page(study)["decisions"]
    assert "1 proposed, 1 launched, 1 waits." in said
    assert f"waits: {why}; 0.6000 against 0.7000 of trial 7, the last that goes on" in said


def test_failures_are_told_by_class_and_reason(study, space):
    for epoch in (1, 2):
        train(study, propose(study, space), outcome=Outcome.DIVERGED, reason=f"the loss became nan in epoch {epoch}")
    train(study, propose(study, space), outcome=Outcome.ERROR, reason="KeyError: 'label'")
    said = Page(study)["failures"]
    assert "diverged 2 the loss became nan in epoch 1 0, 1" in said
    assert "error 1 KeyError: 'label' 2 trials/00002/error.txt" in said


def test_a_search_without_failures_says_so(study, space):
    train_in_full(study, propose(study, space), 0.8)
    assert "No trial has failed." in Page(study)["failures"]


def judged(study, qualities, test=None, openings=1):
    """The finals of some trials, as the command leaves them: scores lie `quality` apart, by trial."""
    rng = np.random.default_rng(0)

    def split(apart):
        targets = (rng.random((400, 1)) < 0.4).astype(float)
        scores = {n: 1 / (1 + np.exp(-(targets * a + rng.normal(size=(3, 400, 1))))) for n, a in apart.items()}
        return Scored(targets, np.arange(400), scores)

    verdict = judge(split(qualities), split(test or qualities), "auroc_macro", resamples=200)
    finalists = [study.trial(number) for number in qualities]
    opened = {"reason": "to evaluate the finalists", "trials": list(qualities), "version": "0.1.0"}
    opened |= {"commit": "0123456789abcdef", "changed": False}
    study.note("test_openings", [{"at": 1e9 + 86400 * day, **opened} for day in range(openings)])
    trainings = {trial.number: [trial] * 3 for trial in finalists}
    write_record(study.folder, describe(study.folder, verdict, finalists, trainings, [], study.facts["test_openings"]))
    return verdict


def test_without_finals_the_page_says_that_the_test_split_is_closed(study, space):
    train_in_full(study, propose(study, space), 0.8)
    page = Page(study)
    assert "finalists" not in page.sections
    assert "The test split has not been opened." in page.first_screen
    assert "The test split has not been opened." in page["data"]
    assert "Openings" not in page["data"]


def test_the_finals_come_first_with_interval_noise_and_optimism(study, space):
    for value in (0.8, 0.7, 0.6):
        train_in_full(study, propose(study, space), value)
    verdict = judged(study, {0: 2.0, 1: 1.95, 2: 0.3}, test={0: 1.0, 1: 0.95, 2: 0.3})
    page, reached = Page(study), verdict.test.reached[verdict.winner]
    family = study.trial(verdict.winner).family
    interval = f"95 % interval {reached.low:.4f} to {reached.high:.4f}"
    value = f"test macro AUROC {reached.mean:.4f} ({interval}), the mean of 3 seeds."
    answer = f"Best of 3 finalists on validation: trial {verdict.winner} ({family}), {value}"
    assert answer in page.first_screen
    assert "only repeating both with other seeds can tell" not in page.first_screen
    assert verdict.sentence in page.first_screen
    assert "within noise" in verdict.sentence
    gap = verdict.gap
    assert f"validation): {gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]" in page.first_screen
    assert "The test split was opened once." in page.first_screen
    assert "has not been opened" not in page.source


def test_the_section_of_the_finalists_has_each_with_its_figures(study, space):
    train_in_full(study, baseline(study), 0.6)
    for value in (0.8, 0.7):
        train_in_full(study, propose(study, space), value)
    verdict = judged(study, {1: 2.0, 2: 1.9, 0: 0.3})
    section = Page(study)["finalists"]
    assert verdict.sentence in section
    assert "0 (recipe plain)" in section
    for side in (verdict.validation, verdict.test):
        for number, reached in side.reached.items():
            text = f"{reached.mean:.4f} ± {reached.sd:.4f} [{reached.low:.4f}, {reached.high:.4f}]"
            assert text in section
            assert all(f"{value:.4f}" in section for value in reached.values)
            if number != verdict.winner:
                difference = side.differences[number]
                noise = ", within noise" if difference.is_noise else ""
                low, high = f"{difference.low:+.4f}", f"{difference.high:+.4f}"
                assert f"{difference.value:+.4f} [{low}, {high}]{noise}" in section
    assert f"Spearman {verdict.spearman:.2f}, Kendall {verdict.kendall:.2f}" in section


def test_each_opening_of_the_test_split_is_counted_with_its_reason_and_code(study, space):
    train_in_full(study, propose(study, space), 0.8)
    judged(study, {0: 1.0}, openings=2)
    page = Page(study)
    assert "The test split was opened 2 times." in page.first_screen
    assert "The test split was opened 2 times." in page["data"]
    assert "2001-09-09 01:46 UTC to evaluate the finalists 0 0.1.0, commit 0123456789ab" in page["data"]
    assert "2001-09-10 01:46 UTC" in page["data"]


def test_an_opening_whose_evaluation_was_killed_is_counted_all_the_same(study, space):
    train_in_full(study, propose(study, space), 0.8)
    opening = {"at": 1e9, "reason": "the finals", "trials": [0], "version": None, "commit": None, "changed": None}
    study.note("test_openings", [opening])
    page = Page(study)
    assert "finalists" not in page.sections
    assert "The test split was opened once" in page.first_screen


def test_warnings_of_the_finals_are_on_the_first_screen(study, space):
    for value in (0.8, 0.7):
        train_in_full(study, propose(study, space), value)
    verdict = judged(study, {0: 6.0, 1: 6.0})
    page = Page(study)
    assert len(verdict.warnings) == 2
    for warning in verdict.warnings:
        assert page.first_screen.count(warning) == 1
        assert warning in page["finalists"]


def test_a_search_winner_that_other_seeds_put_behind_gives_its_place_to_the_winner_of_the_finals(study, space):
    for value in (0.8, 0.7):
        train_in_full(study, propose(study, space), value)
    judged(study, {0: 0.5, 1: 2.0})
    page = Page(study)
    assert "Best of 2 finalists on validation: trial 1 " in page.first_screen
    behind = (
        f"trial 0 ({study.trial(0).family}), validation macro AUROC 0.8000 in one training: other seeds put it behind."
    )
    assert f"Best of the search was {behind}" in page.first_screen
    assert page["winner"].startswith("Winner: trial 1 ")


def test_a_trial_that_is_better_than_finals_of_earlier_is_said_to_await_its_own(study, space):
    train_in_full(study, propose(study, space), 0.7)
    judged(study, {0: 1.0})
    train_in_full(study, propose(study, space), 0.8)
    first = Page(study).first_screen
    assert "The only finalist: trial 0 " in first
    assert "it came after the finals; search.finalize compares it." in first
