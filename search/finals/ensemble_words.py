"""An ensemble's record in words, for the terminal and the report."""

from collections.abc import Mapping
from typing import Any

from search.finals.words import gap, in_words
from search.sentences import listed


def sentences(record: Mapping[str, Any]) -> list[str]:
    """What an ensemble gains and costs, the answer first; record: as `ensemble.json`."""
    metric, members, basis = record["metric"], record["members"], record["basis"]
    who = _who(record)
    if len(members) == 1:
        return [f"{who}: on validation no ensemble of the kept networks has a better {metric}."]
    gain, cost = record["gain"]["test"], record["cost"]
    said = [
        f"{who}. Its test {metric} is {interval(record['test'])}; over trial {basis['delivered']}, the training that "
        f"is handed over, it gains {_gained(gain['delivered'])}."
    ]
    if len(basis["seeds"]) > 1:
        said.append(f"Over the mean of the winner's {len(basis['seeds'])} seeds it gains {_gained(gain['mean'])}.")
    times = cost["times"]
    said.append(
        f"A film takes {times['latency_ms']:.1f} times as long ({cost['latency_ms']:.1f} ms against "
        f"{cost['single']['latency_ms']:.1f} ms, one network after the other), and the parameters are "
        f"{times['parameters']:.1f} times as many."
    )
    return said


def _who(record: Mapping[str, Any]) -> str:
    members, chosen = record["members"], "chosen on validation"
    if len(members) == 1:
        return f"The selection took trial {members[0]['trial']} alone, {chosen}"
    named = [f"{member['trial']} ({share(member['weight'])})" for member in members]
    return f"An ensemble of {len(members)} networks, {chosen}: trials {listed(named)}"


def share(weight: float) -> str:
    """A member's weight as a percentage."""
    return f"{weight:.0%}" if weight >= 0.01 else "under 1%"


def _gained(gain: Mapping[str, Any]) -> str:
    """A gain and whether it is one."""
    value, low, high = (in_words(gain[key], signed=True) for key in ("value", "low", "high"))
    if gain["value"] is None:
        return "an amount that is undefined"
    if gain["is_noise"] and (gain["low"] > 0 or gain["high"] < 0):
        return f"{value} [{low}, {high}], which corrected for both comparisons is within noise"
    if gain["is_noise"]:
        return f"{value} [{low}, {high}], which is within noise: other patients may well undo it"
    return f"{value} [{low}, {high}], which is more than noise of the patients"


def interval(told: Mapping[str, Any], signed: bool = False) -> str:
    """A value and its 95 % interval."""
    value, low, high = (in_words(told[key], signed=signed) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def optimism(record: Mapping[str, Any]) -> str:
    """How much worse the ensemble is on test than on the films that chose it."""
    return f"Optimism gap of the ensemble: {gap(record['gap'])}."


def of_votes(record: Mapping[str, Any]) -> str:
    """What a majority vote of the members calls, beside their mean."""
    calls = record["calls"]
    name = calls["of"].replace("_", " ")
    vote, mean = ({**calls[who][calls["of"]], "gain": calls[who]["gain"]} for who in ("vote", "mean"))
    return (
        f"Calls on test, {name}: majority vote {interval(vote)}, {interval(vote['gain'], signed=True)} over the "
        f"training that is handed over; mean of the probabilities {interval(mean)}, "
        f"{interval(mean['gain'], signed=True)}."
    )
