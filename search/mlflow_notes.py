"""The descriptions that MLflow shows on a study's run and on the runs of its trials, in Markdown."""

import json
import shlex
import time
from pathlib import Path
from typing import Any

from search.durations import format_duration
from search.tally import Tally
from search.trial import Outcome, Trial

_FORMAT = "%Y-%m-%d %H:%M UTC"
_LONGEST = 5000
"""Characters of a tag; older servers take no more."""


def study_note(name: str, folder: Path, facts: dict[str, Any], tally: Tally) -> str:
    """What a study searches, how far it is, and the commands that go on with it."""
    space, films = facts["space"], facts["films"]
    metric = space["objective"]["metric"]
    counts = {**tally.counts, Outcome.OPEN.value: tally.open}
    best = tally.best
    rows = {
        "best so far": f"{title(best)}: **{best.value:.4f}**" if best else "no trial is trained in full yet",
        "trials": ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()) if count) or "none yet",
        "training": f"{format_duration(tally.seconds)} of {'GPU' if tally.on_gpu else 'CPU'} trials",
        "expected end": moment(facts["forecast"]) if facts.get("forecast") else "",
        "data set": f"`{facts['data']}` ({', '.join(f'{count} {part}' for part, count in films.items())} films)",
        "searched": ", ".join(f"`{key}`" for key in space.get("space", {})),
        "study": f"`{folder.resolve()}`",
    }
    study = shlex.quote(str(folder.resolve()))
    commands = [
        f"python -m search.run --study {study} --resume",
        f"python -m search.status {study}",
        f"python -m search.status {study} --explain TRIAL",
        f"python -m search.report {study}",
        f"python -m search.mlflow_sync {study}",
    ]
    aim = f"Search `{name}` (space `{space['name']}`) for the best `{metric}`."
    return fit("\n\n".join([aim, _list(rows), _code(commands)]))


def trial_note(trial: Trial, folder: Path) -> str:
    """What became of a trial and why, and the command that explains it in full."""
    became = f"{title(trial)}: **{trial.outcome.value}**{', ' + trial.reason if trial.reason else ''}"
    lines = ["| when | decision | why | evidence |", "|---|---|---|---|"] if trial.decisions else []
    for entry in trial.decisions:
        cells = (entry.step.value, entry.why, entry.evidence)
        lines.append(f"| {moment(entry.at)} | {' | '.join(map(_cell, cells))} |")
    command = f"python -m search.status {shlex.quote(str(folder.resolve()))} --explain {trial.number}"
    # The last decisions and the command are what is asked for: a long history loses its beginning.
    while len("\n".join(lines)) > _LONGEST - 1000:
        del lines[2]
    return fit("\n\n".join([became, *(["\n".join(lines)] if lines else []), _code([command])]))


def title(trial: Trial) -> str:
    """A trial's number and what it is: its recipe, or the kind of network."""
    return f"trial {trial.number:03d} {trial.baseline or trial.flat.get('model', '')}".rstrip()


def moment(at: float) -> str:
    """A time as people read it. at: seconds since 1970."""
    return time.strftime(_FORMAT, time.gmtime(at))


def fit(text: str, longest: int = _LONGEST) -> str:
    """A text that MLflow takes: cut, visibly, where it is too long."""
    return text if len(text) <= longest else text[: longest - 2] + " …"


def _list(rows: dict[str, str]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in rows.items() if value)


def _code(commands: list[str]) -> str:
    return "\n".join(["```", *commands, "```"])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return fit(text.replace("|", "\\|").replace("\n", " "), 500)
