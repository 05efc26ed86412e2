"""`search.run --list`: whatever is registered is there, as a space file has it."""

import pytest

from cxr_core.config import SEARCHABLE
from cxr_core.registry import Registry
from search.exit_codes import DONE
from search.run import main
from search.searchers import searchers


@pytest.fixture
def listed(capsys):
    assert main(["--list"]) == DONE
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("key", SEARCHABLE)
def test_every_key_of_a_space_is_listed_with_its_parameters(key, listed):
    registry = SEARCHABLE[key]
    if not isinstance(registry, Registry):
        assert sum(line.startswith(f"{key} ") for line in listed) == 1
        return
    start = next(place for place, line in enumerate(listed) if line.startswith(f"{key}: one of these"))
    block = "\n".join(listed[start:]).split("\n\n")[0]
    for component in registry.values():
        assert f"\n  {component.name}  " in block
        assert all(f"\n      {name} " in block for name in component.parameters)


@pytest.mark.parametrize(
    "line",
    [
        "lr number in [1e-08, 10] default 0.001",
        "micro_batch whole number in [1, 4096] or null default null",
        "flip_tta true or false default false",
        "pool average, max, flatten default average",
        'freeze_until text default ""',
    ],
)
def test_values_are_written_as_a_space_file_has_them(line, listed):
    assert line in [" ".join(words.split()) for words in listed]


def test_searchers_and_objectives_are_listed_too(listed):
    told = "\n".join(listed)
    assert all(f"\n  {name}  " in told for name in searchers)
    assert "stressed_auroc_macro" in told
    assert "latency_ms" in told
