"""The ensemble of a study: who may be in it, that the split is opened for it once, and what is told of it."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cxr_core.checkpoint import load_checkpoint
from cxr_core.ensemble import select_models
from search.checkpoints import Checkpoints
from search.finalize import main
from search.finals.ensemble import candidates, choose_members, read_ensemble
from search.finals.ensemble_words import sentences, share
from search.finals.verdict import Scored
from search.kept_scores import read_scores
from search.space import load_space
from search.study import Study
from tests.search.conftest import SPACE
from tests.search.small_study import new_study, train

FAINT = 3
"""A finding that networks see on some films only, so that they differ."""


@pytest.fixture
def study(tmp_path, make_space, monkeypatch):
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cxr_core.console.show_log", lambda *packages: None)  # a handler would outlive this test
    monkeypatch.chdir(tmp_path)
    return new_study(tmp_path, make_space(SPACE), FAINT)


@pytest.fixture(scope="module")
def finalized(tmp_path_factory):
    """A study of four trainings, of which one is a finalist, after its finals."""
    folder = tmp_path_factory.mktemp("finalized")
    (folder / "space.yaml").write_text(SPACE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_CACHE", str(folder / "cache"))
        patch.setattr("cxr_core.console.show_log", lambda *packages: None)
        patch.chdir(folder)
        study = new_study(folder, load_space(folder / "space.yaml"), FAINT)
        for seed in range(4):
            train(study, seed)
        assert main(["sealed", "--top", "1", "--seeds", "1"]) == 0
        yield Study(study.folder)


@pytest.fixture
def record(finalized):
    return read_ensemble(finalized.folder)


def kept(study, number, part):
    """Kept scores of a training and the labels of their films, on a split."""
    place = "test/scores-{:05d}.npz" if part == "test" else "trials/{:05d}/scores-0001.npz"
    scores = read_scores(study.folder / place.format(number))
    table = "test/films.parquet" if part == "test" else "films.parquet"
    films = pd.read_parquet(study.folder / table).set_index("image").loc[scores.index]
    return films["Pneumonia"].to_numpy(), scores.to_numpy()[:, 0].astype(float)


def mean(study, record, part):
    """The labels, and the mean of the members' probabilities by their weights."""
    members = [(member["weight"], *kept(study, member["trial"], part)) for member in record["members"]]
    return members[0][1], sum(weight * scores for weight, _, scores in members)


def test_members_are_chosen_on_validation_among_all_kept_networks(finalized, record):
    assert [trial.number for trial in candidates(finalized)] == [0, 1, 2, 3]
    labels = kept(finalized, 0, "val")[0]
    scores = np.stack([kept(finalized, number, "val")[1] for number in range(4)])
    counts = choose_members(scored(labels, scores), "auroc_macro")
    total = sum(counts.values())
    assert {m["trial"]: m["weight"] for m in record["members"]} == {n: count / total for n, count in counts.items()}
    assert len(record["members"]) > 1  # or this study shows nothing


def test_the_split_was_opened_once_for_the_finalist_and_the_members_together(finalized, record):
    (opening,) = finalized.facts["test_openings"]
    finals = json.loads((finalized.folder / "finalists.json").read_text())
    members = {member["trial"] for member in record["members"]}
    assert set(opening["trials"]) == members | {finals["winner"]}
    assert {number for number, _ in opening["ensemble"]} == members
    scored = {int(path.stem.split("-")[1]) for path in (finalized.folder / "test").glob("scores-*.npz")}
    assert scored == set(opening["trials"])


@pytest.mark.parametrize(("part", "split"), [("val", "validation"), ("test", "test")])
def test_its_value_is_that_of_the_members_mean_by_scikit_learns_count(finalized, record, part, split):
    labels, scores = mean(finalized, record, part)
    assert record[split]["value"] == pytest.approx(roc_auc_score(labels, scores))
    assert record[split]["low"] < record[split]["value"] < record[split]["high"]


def test_the_gain_is_paired_and_its_interval_that_of_a_bootstrap_written_out(finalized, record):
    """The same patients drawn for both, here films in the order of the patients' names; areas by Mann and Whitney."""
    films = pd.read_parquet(finalized.folder / "test" / "films.parquet")
    assert films["patient"].is_unique
    order = np.argsort(films["patient"].to_numpy())
    labels, scores = (values[order] for values in mean(finalized, record, "test"))
    alone = kept(finalized, record["basis"]["delivered"], "test")[1][order]
    rng, gains = np.random.default_rng(1), []  # the finals' seed of the test split
    for _ in range(2000):
        drawn = rng.integers(len(labels), size=len(labels))
        gains.append(area(labels[drawn], scores[drawn]) - area(labels[drawn], alone[drawn]))
    gain = record["gain"]["test"]["delivered"]
    assert gain["value"] == pytest.approx(roc_auc_score(labels, scores) - roc_auc_score(labels, alone))
    assert [gain["low"], gain["high"]] == pytest.approx(np.quantile(gains, [0.025, 0.975]))
    assert gain["is_noise"] == (gain["p"] >= 0.05)
    assert record["gap"]["value"] == pytest.approx(record["validation"]["value"] - record["test"]["value"])


def area(labels, scores):
    """The share of pairs of a film with and one without the finding that are in the right order."""
    pairs = scores[labels == 1][:, None] - scores[labels == 0]
    return np.mean((pairs > 0) + 0.5 * (pairs == 0))


def test_votes_are_cast_by_each_members_own_threshold(finalized, record):
    calls, weights = [], []
    for member in record["members"]:
        checkpoint = load_checkpoint(finalized.folder / member["checkpoint"])
        calls.append(kept(finalized, member["trial"], "test")[1] >= checkpoint.thresholds["youden"][0])
        weights.append(kept(finalized, member["trial"], "test")[1] - checkpoint.thresholds["youden"][0])
    share, beyond = np.mean(calls, axis=0), np.sum(weights, axis=0)
    votes = np.where(share == 0.5, beyond >= 0, share > 0.5)
    labels = kept(finalized, 0, "test")[0]
    vote = record["calls"]["vote"]
    assert vote["balanced_accuracy"]["value"] == pytest.approx(balanced_accuracy_score(labels, votes))
    assert vote["sensitivity"]["value"] == pytest.approx(votes[labels == 1].mean())
    of_single = record["calls"]["delivered"]["balanced_accuracy"]["value"]
    assert vote["gain"]["value"] == pytest.approx(vote["balanced_accuracy"]["value"] - of_single)


def test_its_cost_is_that_of_all_members(record):
    cost, count = record["cost"], len(record["members"])
    assert cost["networks"] == count
    assert cost["times"]["parameters"] == pytest.approx(count)  # all are of one architecture here
    assert cost["latency_ms"] > cost["single"]["latency_ms"] > 0


def test_the_terminal_and_the_report_tell_of_it(finalized, record, capsys, monkeypatch):
    monkeypatch.chdir(finalized.folder.parents[1])
    assert main(["sealed", "--top", "1", "--seeds", "1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    page = (finalized.folder / "report.html").read_text()
    for sentence in record["sentences"]:
        assert sentence in out
        assert sentence in page
    assert f"An ensemble of {len(record['members'])} networks, chosen on validation" in out
    assert "majority vote" in out


def test_told_again_it_is_the_same_to_the_byte_and_nothing_is_opened(finalized, record, monkeypatch):
    monkeypatch.chdir(finalized.folder.parents[1])
    path = finalized.folder / "ensemble.json"
    before = path.stat().st_mtime_ns
    assert main(["sealed", "--top", "1", "--seeds", "1", "--json"]) == 0
    assert path.stat().st_mtime_ns == before
    assert len(Study(finalized.folder).facts["test_openings"]) == 1


def test_a_kill_between_opening_and_evaluation_leaves_the_choice_as_it_was(study):
    for seed in range(3):
        train(study, seed)
    assert main(["sealed", "--top", "1", "--seeds", "1"]) == 0
    before = read_ensemble(study.folder)
    for path in (study.folder / "test").iterdir():
        path.unlink()
    (study.folder / "ensemble.json").unlink()
    (study.folder / "finalists.json").unlink()
    assert main(["sealed", "--top", "1", "--seeds", "1"]) == 0
    after = read_ensemble(study.folder)
    assert len(Study(study.folder).facts["test_openings"]) == 1
    for told in (before, after):  # latency is measured
        del told["cost"], told["sentences"]
    assert after == before


def test_a_network_that_came_after_the_opening_changes_nothing(study):
    trials = [train(study, seed) for seed in range(2)]
    assert main(["sealed", "--top", "1", "--seeds", "1"]) == 0
    before = (study.folder / "ensemble.json").read_text()
    assert train(study, 2).value < max(trial.value for trial in trials)  # or it would be the finalist
    assert main(["sealed", "--top", "1", "--seeds", "1"]) == 0
    assert (study.folder / "ensemble.json").read_text() == before
    assert len(Study(study.folder).facts["test_openings"]) == 1


def scored(labels, scores):
    """Scores (M, N) of one finding on N films as those of M trainings."""
    return Scored(labels[:, None], np.arange(len(labels)), {n: one[None, :, None] for n, one in enumerate(scores)})


@pytest.mark.parametrize(("others", "bags"), [("as good", 20), ("blind", 0)])
def test_members_are_selected_in_bags_unless_the_best_network_alone_is_better(others, bags):
    """Half of the bags do not know the best network, and drag the ensemble down where the others know nothing."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    seen = np.ones(6) if others == "as good" else np.arange(6) == 0
    scores = 1 / (1 + np.exp(-(2 * labels - 1) * 1.5 * seen[:, None] - rng.normal(size=(6, 200))))
    targets = labels[:, None].astype(float)
    expected, other = (
        select_models(targets, scores[..., None], "auroc_macro", bags=count).counts for count in (bags, 20 - bags)
    )
    chosen = choose_members(scored(labels.astype(float), scores), "auroc_macro")
    assert chosen == {number: count for number, count in enumerate(expected) if count}
    assert expected != other  # or this would show nothing


def test_another_opening_chooses_anew_among_all(study):
    for seed in range(2):
        train(study, seed)
    assert main(["sealed", "--top", "2", "--seeds", "1"]) == 0
    train(study, 2)
    assert main(["sealed", "--top", "3", "--seeds", "1", "--reopen-test", "one more"]) == 0
    second = Study(study.folder).facts["test_openings"][1]
    assert second["trials"] == [2]
    scores = np.stack([kept(study, number, "val")[1] for number in range(3)])
    validation = scored(kept(study, 0, "val")[0], scores)
    assert second["ensemble"] == [list(member) for member in choose_members(validation, "auroc_macro").items()]


def test_finals_from_before_there_were_ensembles_have_one_of_what_they_evaluated(study):
    for seed in range(3):
        train(study, seed)
    assert main(["sealed", "--top", "2", "--seeds", "1"]) == 0
    (study.folder / "ensemble.json").unlink()
    (opening,) = study.facts["test_openings"]
    ranked = sorted(study.trials(), key=lambda trial: -trial.value)
    del opening["ensemble"]
    study = Study(study.folder)
    study.note("test_openings", [{**opening, "trials": [trial.number for trial in ranked[:2]]}])
    assert main(["sealed", "--top", "2", "--seeds", "1"]) == 0
    members = {member["trial"] for member in read_ensemble(study.folder)["members"]}
    assert members <= {trial.number for trial in ranked[:2]}
    assert len(Study(study.folder).facts["test_openings"]) == 1


def test_who_may_not_win_may_not_help_others_win(study, monkeypatch):
    for seed in range(3):
        train(study, seed)
    train(study, 3, repeats=1)
    monkeypatch.setattr(type(study), "may_win", lambda self, trial: trial.number not in (1, 3))
    assert [trial.number for trial in candidates(study)] == [0, 2]


def test_a_training_without_its_checkpoint_is_no_candidate(study):
    trials = [train(study, seed) for seed in range(2)]
    (study.folder / trials[0].epochs[-1].checkpoint).unlink()
    assert candidates(study) == [trials[1]]


def test_the_checkpoints_of_members_are_kept(study):
    trials = [train(study, seed) for seed in range(3)]
    study.note("test_openings", [{"at": 1.0, "reason": "", "trials": [2], "ensemble": [[2, 1]]}])
    Checkpoints(study.folder, study, best=1, quota=1).sweep(trials[0])
    left = {int(path.parent.name) for path in (study.folder / "trials").glob("*/epoch-*.pt")}
    assert left == {2}


def test_one_network_is_said_to_be_no_ensemble(study):
    train(study)
    assert main(["sealed", "--top", "1", "--seeds", "1"]) == 0
    record = read_ensemble(study.folder)
    assert record["sentences"] == [
        "The selection took trial 0 alone, chosen on validation: on validation no ensemble of the kept networks has a "
        "better auroc_macro."
    ]
    assert record["gain"]["test"]["delivered"]["value"] == 0


def test_a_gain_is_called_noise_in_words(record):
    told = json.loads(json.dumps(record))
    gain = told["gain"]["test"]["delivered"]
    gain.update(value=0.01, low=-0.02, high=0.03, is_noise=True)
    assert "+0.0100 [-0.0200, +0.0300], which is within noise" in sentences(told)[0]
    gain.update(low=0.005, is_noise=False)
    assert "+0.0100 [+0.0050, +0.0300], which is more than noise of the patients" in sentences(told)[0]
    gain.update(value=None, low=None, high=None)
    assert "it gains an amount that is undefined" in sentences(told)[0]
    assert math.isfinite(record["cost"]["times"]["latency_ms"])


def test_a_member_that_is_rarely_taken_is_not_said_to_weigh_nothing():
    assert [share(weight) for weight in (0.414, 0.01, 0.004)] == ["41%", "1%", "under 1%"]
