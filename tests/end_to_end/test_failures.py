"""Every class of failure, caused for real: nothing is lost or done twice, and the exit code says what it was."""

import random
import signal
import subprocess
import time
from textwrap import indent

import psutil
import pytest

from search.trial import Outcome, Step
from tests.end_to_end.conftest import Search, finish

ONE_FAMILY = ["--set", "space.model={small_cnn: {width: {int: [4, 12], step: 4}}}"]


@pytest.fixture
def sabotage(search):
    """Runs a piece of code at the start of every worker of a search; `once` in it is true the first time only."""

    def install(code):
        once = f"import os\ndef once(mark={str(search.folder / 'done')!r}):\n    try: os.mkdir(mark)\n"
        once += "    except FileExistsError: return False\n    return True\n"
        in_workers = "if b'default_worker.py' in open('/proc/self/cmdline', 'rb').read():\n"
        (search.folder / "sitecustomize.py").write_text(once + in_workers + indent(code, "    "))
        search.env["PYTHONPATH"] += f":{search.folder}"

    return install


def broken_save(what):
    """Each checkpoint goes through torch.save: there a worker can be struck in the middle of a trial."""
    struck = f"def struck(*args, **options):\n    {what}\n    return save(*args, **options)\n"
    return f"import torch\nsave = torch.save\n{struck}torch.save = struck\n"


def outcomes(search):
    return [trial.outcome for trial in search.study.trials()]


def test_an_exception_in_one_trial_ends_that_trial_and_keeps_its_traceback(search, sabotage):
    sabotage(broken_save("if once(): raise ValueError('the film is upside down')"))
    code, _, err = search.run()
    assert code == 0, err
    (failed,) = [trial for trial in search.study.trials() if trial.outcome is Outcome.ERROR]
    assert failed.reason == "ValueError: the film is upside down"
    assert "Traceback" in (search.study.trial_folder(failed.number) / "error.txt").read_text()
    assert set(outcomes(search)) <= {Outcome.ERROR, Outcome.FULL, Outcome.PRUNED}


@pytest.mark.parametrize("death", ["os._exit(7)", "os.kill(os.getpid(), 9)"])
def test_a_worker_that_dies_in_mid_trial_costs_its_epoch_only(search, sabotage, death):
    sabotage(broken_save(f"if once(): {death}"))
    code, _, err = search.run("--trials", "4", *ONE_FAMILY)
    assert code == 0, err
    (struck,) = [trial for trial in search.study.trials() if trial.attempts]
    assert struck.attempts == 1
    assert Step.RETRIED in [decision.step for decision in struck.decisions]
    assert set(outcomes(search)) == {Outcome.FULL, Outcome.PRUNED}


def test_a_trial_that_diverges_ends_with_its_reason_and_the_others_go_on(search, sabotage):
    """One step of one trial makes its weights undefined."""
    spoil = "for weight in weights: weight.data.fill_(float('nan'))"
    sabotage(
        "import torch\nclip = torch.nn.utils.clip_grad_norm_\ndef struck(weights, *args, **options):\n"
        f"    weights = list(weights)\n    if once():\n        {spoil}\n    return clip(weights, *args, **options)\n"
        "torch.nn.utils.clip_grad_norm_ = struck\n"
    )
    code, _, err = search.run("--trials", "4", *ONE_FAMILY)
    assert code == 0, err
    (struck,) = [trial for trial in search.study.trials() if trial.outcome is Outcome.DIVERGED]
    assert "nan" in struck.reason
    assert "epoch" in struck.reason
    assert search.study.winner().number != struck.number


def test_a_network_that_takes_more_memory_than_there_is_ends_and_the_others_go_on(search):
    """Weights, gradients, their average and AdamW's moments of a ResNet-50 take 450 MB, however small the batch."""
    search.env["CXR_MEMORY_LIMIT"] = "250M"
    families = "space.model.choice={small_cnn: {width: {int: [4, 12], step: 4}}, resnet50: {}}"
    code, _, err = search.run("--set", families, "--set", "space.epochs=3", "--trials", "6")
    assert code == 0, err
    ended = {(trial.family, trial.outcome) for trial in search.study.trials()}
    assert {outcome for family, outcome in ended if family == "resnet50"} == {Outcome.INFEASIBLE}
    assert ("small_cnn", Outcome.FULL) in ended
    assert all("out of memory" in t.reason for t in search.study.trials() if t.outcome is Outcome.INFEASIBLE)


def comparable(study):
    """What a search found and decided, without what depends on the clock."""
    return [
        (trial.flat, trial.seed, trial.outcome, trial.reason, [(e.epoch, e.value) for e in trial.epochs])
        for trial in study.trials()
    ]


def wait_for_an_epoch(search, process):
    """Until the study holds one more epoch, or the search has ended."""
    journal = search.folder / "studies" / "quick" / "journal.log"
    epochs = lambda: journal.read_bytes().count(b'"epoch:') if journal.exists() else 0  # noqa: E731
    known, deadline = epochs(), time.monotonic() + 120
    while epochs() == known and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_search_killed_twenty_times_ends_as_one_that_never_was(tmp_path, few_films):
    """kill -9 of the driver at random moments: trials, states, reasons and every value are the same."""
    # One thread: two wait for each other for minutes where the cores are busy.
    one, searches = ("--concurrent", "1", "--cpus-per-trial", "1"), {}
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
        searches[name] = Search(tmp_path / name, few_films)
    assert finish(searches["undisturbed"].start(*one, "--trials", "20"), seconds=1500)[0] == 0
    moments = random.Random(20)
    killed = searches["killed"]
    process = killed.start(*one, "--trials", "20")
    for kill in range(20):
        if kill % 4:  # somewhere in its training
            wait_for_an_epoch(killed, process)
            time.sleep(moments.uniform(0, 1.5))
        else:  # somewhere in its start
            time.sleep(moments.uniform(0, 12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if (killed.folder / "studies" / "quick" / "journal.log").exists():
            process = killed.resume(*one)
        else:  # killed before there was a study
            process = killed.start(*one, "--trials", "20")
    code, _, err = finish(process, seconds=1500)
    assert code == 0, err
    assert comparable(killed.study) == comparable(searches["undisturbed"].study)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 700 MB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("a tmpfs can only be mounted by root")
    yield place
    subprocess.run(["pkill", "-KILL", "-f", str(place)], check=False)
    for _attempt in range(50):
        if subprocess.run(["umount", str(place)], capture_output=True).returncode == 0:
            return
        time.sleep(0.2)


def fill(disk):
    """Take up all that is left of a disk."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**20))
        except OSError:
            pass
        while True:
            try:
                file.write(bytes(64))
            except OSError:
                return


def test_a_full_disk_stops_the_search_and_it_goes_on_when_there_is_room(small_disk, few_films, tmp_path):
    search = Search(small_disk, few_films)
    search.env["CXR_CACHE"] = str(tmp_path / "cache")
    process = search.start()
    search.wait_for_epochs(2, process)
    fill(small_disk)
    code, _, err = finish(process)
    assert code == 5, err
    assert "full" in err
    assert "--resume" in err
    before = {trial.number: len(trial.epochs) for trial in search.study.trials()}
    (small_disk / "filler").unlink()
    code, _, err = finish(search.resume())
    assert code == 0, err
    assert set(outcomes(search)) == {Outcome.FULL, Outcome.PRUNED}
    assert len(outcomes(search)) == 8
    assert all(len(search.study.trial(number).epochs) >= epochs for number, epochs in before.items())


def test_a_disk_without_room_for_checkpoints_is_found_out_before_the_search(small_disk, few_films, tmp_path):
    search = Search(small_disk, few_films)
    search.env["CXR_CACHE"] = str(tmp_path / "cache")
    (small_disk / "filler").write_bytes(bytes(400 * 2**20))
    code, _, err = search.run()
    assert code == 3
    assert "MiB are free" in err
    assert not (small_disk / "studies" / "quick").exists()


def test_a_journal_damaged_by_a_power_cut_is_mended_by_resuming(search):
    process = search.start()
    search.wait_for_epochs(3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    journal = search.folder / "studies" / "quick" / "journal.log"
    with journal.open("ab") as file:
        file.write(b'{"op_code":8,"worker' + bytes(300))
    code, _, err = finish(search.resume())
    assert code == 0, err
    assert "damaged bytes" in err
    assert Outcome.OPEN not in outcomes(search)


def test_a_study_that_is_drained_and_resumed_repeats_no_epoch(search):
    process = search.start("--concurrent", "2")
    search.wait_for_epochs(2, process)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process, 90)
    assert code == 5, err
    paused = [trial for trial in search.study.trials() if trial.decisions[-1].step is Step.PAUSED]
    assert paused
    assert all("SIGTERM" in trial.decisions[-1].why for trial in paused)
    code, _, err = finish(search.resume())
    assert code == 0, err
    assert Outcome.OPEN not in outcomes(search)


def test_a_search_leaves_no_process_behind(search):
    process = search.start("--trials", "3", *ONE_FAMILY)
    search.wait_for_epochs(1, process)
    family = psutil.Process(process.pid).children(recursive=True)
    code, _, err = finish(process)
    assert code == 0, err
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive, [" ".join(p.cmdline())[:100] for p in alive]
