"""What the command says to mistakes, before anything is started or written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import REPOSITORY, finish


def test_a_mistyped_key_is_told_with_its_line_and_costs_nothing(search):
    path = search.folder / "quick.yaml"
    path.write_text(path.read_text().replace("dropout:", "dropuot:"))
    code, _, err = search.run()
    line = path.read_text()[: path.read_text().index("dropuot")].count("\n") + 1
    assert code == 2
    assert (
        err
        == f"quick.yaml:{line}: space.dropuot: there is nothing named 'dropuot' to search; did you mean 'dropout'?\n"
    )
    assert not (search.folder / "studies").exists()


def test_a_range_outside_what_a_component_takes_is_refused(search):
    code, _, err = search.run("--set", "space.dropout={float: [0.1, 1.5]}")
    assert code == 2
    assert "must lie in [0, 0.95], not be 1.5" in err


def test_a_missing_space_file_is_refused(search):
    code, _, err = finish(search.python([sys.executable, "-m", "search.run", "--space", "quik.yaml"]))
    assert code == 2
    assert "quik.yaml: no such file; did you mean quick.yaml?" in err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--time", "10 parsecs"], "is no length of time"),
        (["--trials", "0"], "must be 1 or more"),
        (["--resume", "--fresh"], "exclude each other"),
        (["--address", "auto"], "needs --concurrent"),
        (["--frobnicate"], "unrecognized arguments"),
    ],
)
def test_a_bad_option_is_refused(search, options, told):
    code, _, err = search.run(*options)
    assert code == 2
    assert told in err


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("medmnst:x.npz", "there is no data set kind 'medmnst'"),
        ("medmnist:nowhere.npz", "nowhere.npz: no such file"),
        ("nih:nowhere", "nowhere: no such folder"),
        ("medmnist:quick.yaml", "cannot be read as a MedMNIST .npz file"),
    ],
)
def test_data_that_cannot_be_read_fails_the_preflight(search, data, told):
    code, _, err = search.run(data=data)
    assert code == 3
    assert told in err
    assert "Traceback" not in err
    assert not (search.folder / "studies" / "quick").exists()


def test_unreadable_films_fail_the_preflight_by_name(search):
    """An NIH folder whose films are text renamed to .png."""
    root = search.folder / "nih"
    (root / "images").mkdir(parents=True)
    names = [f"{patient:08d}_000.png" for patient in range(40)]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position\n"
    rows = [f"{name},{'Pneumonia' if n % 2 else 'No Finding'},0,{n},50,F,PA\n" for n, name in enumerate(names)]
    (root / "Data_Entry_2017_v2020.csv").write_text(header + "".join(rows))
    (root / "train_val_list.txt").write_text("\n".join(names[:30]))
    (root / "test_list.txt").write_text("\n".join(names[30:]))
    for name in names:
        (root / "images" / name).write_text("not a film")
    code, _, err = search.run(data=f"nih:{root}")
    assert code == 3
    assert "more than 1 % of 30 films cannot be read (1 so far); the first is 00000000_000.png" in err


def test_a_label_that_the_data_set_lacks_fails_the_preflight(search):
    code, _, err = search.run("--set", "task.labels=[Hernia]")
    assert code == 3
    assert "the label 'Hernia' is not in this data set; it has Pneumonia" in err


def test_an_mlflow_server_that_does_not_answer_fails_the_preflight(search):
    code, _, err = search.run("--mlflow", "http://127.0.0.1:9")
    assert code == 3
    assert "the server does not answer" in err


def test_resuming_a_study_that_does_not_exist_is_refused(search):
    code, _, err = finish(search.resume())
    assert code == 2
    assert "there is no study" in err


def test_a_dry_run_shows_sizes_rungs_and_cost_and_writes_nothing(search):
    before = sorted(search.folder.rglob("*"))
    code, out, err = search.run("--dry-run")
    assert code == 0, err
    assert "space quick: valid" in out
    assert "small_cnn width=" in out
    assert "parameters" in out
    assert "rungs at" in out
    assert "the budget of 8 trials is about" in out
    assert sorted(search.folder.rglob("*")) == before


@pytest.mark.parametrize("what", ["--help", "--dry-run"])
def test_ray_is_imported_only_when_a_search_starts(search, what):
    code = (
        "import sys, search.run\n"
        f"try: search.run.main(['--space', 'quick.yaml', '{what}'])\n"
        "except SystemExit: pass\n"
        "sys.exit('ray' in sys.modules or 'mlflow' in sys.modules)"
    )
    assert finish(search.python([sys.executable, "-c", code]))[0] == 0


def test_the_phantom_is_used_and_named_where_no_data_is_given(search):
    process = search.python([sys.executable, "-m", "search.run", "--space", "quick.yaml", "--trials", "2", "--json"])
    code, out, err = finish(process)
    assert code == 0, err
    assert "phantom" in err
    assert "phantom" in Path(json.loads(out)["report"]).read_text()


def test_the_console_script_is_the_same_command(tmp_path):
    """Installed for real, without its dependencies, into a folder."""
    source = tmp_path / "source"
    for name in ("search", "cxr_core"):
        shutil.copytree(REPOSITORY / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        tmp_path,
        ".",
    ]
    subprocess.run(install, cwd=source, check=True)
    script = tmp_path / "bin" / "cxr-search"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0
    assert "--space" in done.stdout
