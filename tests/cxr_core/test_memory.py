"""Memory of the process: measured, limited by the user, and run out of for real, each in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cxr_core.memory import is_out_of_memory, parse_size

CHECKOUT = Path(__file__).parents[2]
MIB = 2**20


def run(script: str) -> str:
    """What a script prints in a fresh process."""
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("text", "size"), [("8GiB", 8 * 2**30), ("8G", 8 * 2**30), ("1.5 gb", 1536 * MIB), ("800MiB", 800 * MIB)]
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["8", "", "lots", "-1G", "0G", "8 PiB"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size such as 8GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    "allocate", ["torch.ones(2**31)", "numpy.ones(2**31)", "torch.nn.Conv2d(64, 512, 3)(torch.ones(64, 64, 256, 256))"]
)
def test_beyond_its_limit_a_process_gets_a_fault_that_is_recognised_and_lives_on(allocate: str) -> None:
    told = run(f"""
import numpy, torch
from cxr_core.memory import is_out_of_memory, limit_process
limit_process({1400 * MIB})
try:
    {allocate}
except Exception as fault:
    print(is_out_of_memory(fault))
print(torch.ones(2**20).sum().item())
""")
    assert told.split() == ["True", "1048576.0"]


def test_other_faults_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as fault:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(fault.value)


def test_the_peak_is_what_was_held_since_it_was_reset_without_pages_of_files(tmp_path: Path) -> None:
    (tmp_path / "films").write_bytes(bytes(300 * MIB))
    told = run(f"""
import numpy, torch
from cxr_core.memory import peak, release, reset_peak
before = peak()
films = numpy.memmap({str(tmp_path / "films")!r}, mode="r")
total = films.sum()
mapped = peak()
held = torch.ones(400 * {MIB} // 4)
del held
after = peak()
reset_peak()
print(mapped - before, after - before, peak() - before)
""")
    mapped, after, reset = (int(number) / MIB for number in re.findall(r"-?\d+", told))
    assert abs(mapped) < 50
    assert 350 < after < 450
    assert abs(reset) < 50
