"""Figures of a search: learning curves, history, what mattered, families, the front, and what it cost."""

import random
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, create_trial

from search.report.account import Share
from search.report.drawing import BLUE, GREY, ORANGE, RED, blank
from search.report.names import progress, standing, title
from search.rungs import Rungs
from search.study import Study
from search.trial import Outcome, Trial

_ENOUGH = 8
"""Trials below which a parameter's importance is not worth showing."""


@dataclass(frozen=True)
class _Style:
    color: str
    symbol: str
    width: float
    opacity: float
    dash: str = "solid"


_STYLES = {
    "pruned": _Style(GREY, "circle", 1, 0.45),
    "not ended": _Style(GREY, "circle-open", 1.5, 0.8, "dash"),
    "failed": _Style(RED, "x", 1.5, 0.9, "dot"),
    "trained in full": _Style(BLUE, "circle", 1.8, 0.75),
    "baseline": _Style(ORANGE, "diamond", 2, 0.9),
    "best": _Style(BLUE, "star", 4, 1),
}
"""What a trial looks like by its part in the search; later ones are drawn over earlier ones."""


def _by_part(trials: Iterable[Trial], best: Trial | None) -> Iterable[tuple[str, _Style, list[Trial]]]:
    """Trials that trained at all, by their part in the search."""
    groups: dict[str, list[Trial]] = {part: [] for part in _STYLES}
    for trial in trials:
        if trial.epochs:
            groups[_part(trial, best)].append(trial)
    return [(part, _STYLES[part], group) for part, group in groups.items() if group]


def _part(trial: Trial, best: Trial | None) -> str:
    if best and trial.number == best.number:
        return "best"
    if trial.outcome is Outcome.FULL:
        return "baseline" if trial.baseline else "trained in full"
    return {Outcome.OPEN: "not ended", Outcome.PRUNED: "pruned"}.get(trial.outcome, "failed")


def learning_curves(trials: Iterable[Trial], best: Trial | None, rungs: Rungs, metric: str) -> go.Figure:
    """The objective of every trial against its progress, with the rungs."""
    figure = blank(460, "share of the trial's own schedule", metric)
    for part, style, group in _by_part(trials, best):
        # The lines of one part are a single trace with gaps, so that the legend has one entry a part.
        points = [point for trial in group for point in (*_curve(trial), (None, None, None))]
        x, y, text = zip(*points, strict=True)
        figure.add_scatter(
            x=x,
            y=y,
            text=text,
            name=part,
            mode="lines+markers",
            opacity=style.opacity,
            line={"color": style.color, "width": style.width, "dash": style.dash},
            marker={"color": style.color, "size": 3 + style.width},
            hovertemplate="trial %{text}<br>%{x:.0%} of its schedule<br>" + metric + " %{y:.4f}<extra></extra>",
        )
    for fraction in rungs.fractions:
        note = {"annotation_text": f"{fraction:.0%}", "annotation_position": "bottom right"}
        figure.add_vline(fraction, line={"color": GREY, "width": 1, "dash": "dot"}, annotation_font_size=11, **note)
    return figure.update_xaxes(tickformat=".0%", range=[0, 1.02]).update_layout(showlegend=True)


def _curve(trial: Trial) -> list[tuple[float, float, str]]:
    return [(epoch.epoch / trial.schedule, epoch.value, title(trial)) for epoch in trial.epochs]


def losses(trial: Trial) -> go.Figure:
    """A trial's loss on training and validation films, epoch by epoch, in the last of its trainings."""
    figure = blank(340, "epoch", "loss")
    epochs = [epoch.epoch for epoch in trial.last_training]
    curves = {
        "training loss": ([epoch.train_loss for epoch in trial.last_training], ORANGE),
        "validation log loss": ([epoch.metrics["log_loss"] for epoch in trial.last_training], BLUE),
    }
    for name, (values, color) in curves.items():
        figure.add_scatter(x=epochs, y=values, name=name, mode="lines+markers", line={"color": color}, marker_size=5)
    return _whole_ticks(figure, len(epochs))


def history(trials: Sequence[Trial], best: Trial | None, metric: str, maximize: bool) -> go.Figure:
    """The last objective of each trial by its number, and the best full trial so far."""
    figure = blank(400, "trial", metric)
    for part, style, group in _by_part(trials, best):
        figure.add_scatter(
            x=[trial.number for trial in group],
            y=[trial.epochs[-1].value for trial in group],
            text=[f"trial {title(trial)}<br>{standing(trial)}, {progress(trial)} epochs" for trial in group],
            name=part,
            mode="markers",
            marker={
                "color": style.color,
                "symbol": style.symbol,
                "size": 7 + style.width,
                "opacity": max(0.6, style.opacity),
            },
            hovertemplate="%{text}<br>" + metric + " %{y:.4f}<extra></extra>",
        )
    full = {trial.number: trial.value for trial in trials if trial.repeats is None and trial.value is not None}
    so_far = list(accumulate(full.values(), max if maximize else min))
    line = {"color": BLUE, "width": 1.5, "shape": "hv", "dash": "dot"}
    figure.add_scatter(x=list(full), y=so_far, name="best so far", mode="lines", line=line, hoverinfo="skip")
    return _whole_ticks(figure, len(trials)).update_layout(showlegend=True)


def _whole_ticks(figure: go.Figure, count: int) -> go.Figure:
    """Keep plotly from marking halves on an axis that counts to a small number."""
    return figure.update_xaxes(dtick=1) if count <= 12 else figure


def label_areas(areas: Sequence[tuple[str, float | None, int, int]]) -> go.Figure:
    """The AUROC of each label with its validation positives, best first; an undefined one has no bar."""
    figure = blank(70 + 26 * len(areas), "", "")
    figure.add_bar(
        x=[area if area is not None else 0 for _, area, *_ in areas],
        y=[label.replace("_", " ") for label, *_ in areas],
        text=["undefined" if area is None else f"{area:.3f}" for _, area, *_ in areas],
        customdata=[positives for *_, positives, _ in areas],
        orientation="h",
        marker_color=BLUE,
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{text} from %{customdata} positives<extra></extra>",
    )
    chance = {"annotation_text": "chance", "annotation_position": "top", "annotation_font_size": 11}
    figure.add_vline(0.5, line={"color": GREY, "width": 1, "dash": "dot"}, **chance)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure.update_xaxes(range=[0, 1.12], tickvals=[0, 0.25, 0.5, 0.75, 1]).update_layout(margin_t=20)


def first_decision(trial: Trial, rungs: Rungs) -> float | None:
    """A trial's objective where its first rung, or else its end, lies: there all trials can be compared."""
    first = (*rungs.epochs(trial.schedule), trial.schedule)[0]
    return next((epoch.value for epoch in trial.epochs if epoch.epoch == first), None)


def families(trials: Sequence[Trial], rungs: Rungs, metric: str, stages: int) -> go.Figure:
    """The objective by architecture family, at the first rung and in full.

    stages: of the search's trials; a trial of another number of them has nothing to compare at the first rung.
    """
    figure = blank(380, "", metric)
    groups = {
        "at the first rung": (
            GREY,
            {trial.number: first_decision(trial, rungs) for trial in trials if trial.stages == stages},
        ),
        "trained in full": (BLUE, {trial.number: trial.value for trial in trials if trial.outcome is Outcome.FULL}),
    }
    for name, (color, values) in groups.items():
        shown = [trial for trial in trials if values.get(trial.number) is not None]
        figure.add_box(
            x=[trial.family for trial in shown],
            y=[values[trial.number] for trial in shown],
            text=[title(trial) for trial in shown],
            name=name,
            boxpoints="all",
            jitter=0.5,
            pointpos=0,
            marker={"color": color, "size": 7, "opacity": 0.8},
            line={"color": color, "width": 1},
            fillcolor="rgba(0,0,0,0)",
            hoveron="points",
            hovertemplate="trial %{text}<br>" + metric + " %{y:.4f}<extra></extra>",
        )
    return figure.update_layout(boxmode="group", showlegend=True)


def front(trials: Sequence[Trial], front: Sequence[Trial], best: Trial | None, metrics: Sequence[str]) -> go.Figure:
    """Full trials by their first two objectives, with those that no other one beats in all objectives."""
    figure = blank(420, metrics[1], metrics[0])
    on_front = {trial.number for trial in front}
    beaten = [trial for trial in trials if trial.number not in on_front]
    # In order of the second objective, so that the line runs along the front; of three, the front is no line.
    along = sorted(front, key=lambda trial: trial.values[1])
    groups = {
        "beaten": (beaten, "markers", _STYLES["pruned"]),
        "on the front": (along, "lines+markers" if len(metrics) == 2 else "markers", _STYLES["trained in full"]),
        "winner": ([best] if best else [], "markers", _STYLES["best"]),
    }
    for name, (group, mode, style) in groups.items():
        figure.add_scatter(
            x=[trial.values[1] for trial in group],
            y=[trial.values[0] for trial in group],
            text=[title(trial) for trial in group],
            name=name,
            mode=mode,
            line={"color": style.color, "width": 1, "dash": "dot"},
            marker={"color": style.color, "symbol": style.symbol, "size": 8 + style.width},
            hovertemplate=f"trial %{{text}}<br>{metrics[0]} %{{y:.4f}}<br>{metrics[1]} %{{x}}<extra></extra>",
        )
    costs = [trial.values[1] for trial in trials]
    if min(costs) > 0 and max(costs) > 20 * min(costs):  # as parameters of networks are
        figure.update_xaxes(type="log", dtick=1)
    return figure.update_layout(showlegend=True)


def shares(paid: Sequence[Share]) -> go.Figure:
    """Device-hours by what became of the trials."""
    figure = blank(70 + 30 * len(paid), "device-hours", "")
    figure.add_bar(
        x=[share.hours for share in paid],
        y=[share.fate for share in paid],
        orientation="h",
        marker_color=[BLUE if share.fate.startswith("trained") else GREY for share in paid],
        hovertemplate="%{y}: %{x:.2f} device-hours<extra></extra>",
    )
    return figure.update_yaxes(autorange="reversed", showgrid=False).update_layout(margin_t=10)


def early_study(study: Study, trials: Iterable[Trial], rungs: Rungs) -> optuna.Study:
    """An Optuna study in memory: of a study's trials, the searched ones with their objective at their first rung."""
    reached = {trial.number: first_decision(trial, rungs) for trial in trials if trial.searched}
    early = optuna.create_study(direction="maximize" if study.objective.maximize[0] else "minimize")
    for frozen in study.optuna_study().get_trials(deepcopy=False):
        if (value := reached.get(frozen.number)) is not None:
            early.add_trial(create_trial(params=frozen.params, distributions=frozen.distributions, value=value))
    return early


def importances(early: optuna.Study) -> go.Figure | None:
    """How much of the objective's variance at the first rung each parameter explains; None if the trials cannot tell.

    Mean decrease of impurity in a random forest (Breiman 2001): of Optuna's measures the one that, with some 20 to 60
    trials of TPE, is the least distracted by the corners of the space that hardly any trial visited. Of 20 random
    reassignments of the values to the trials, one gave some parameter more than the line.
    """
    values = [trial.values[0] for trial in early.trials]
    shared = _shared_parameters(early)
    if len(values) < _ENOUGH or len(set(values)) < 2 or not shared:
        return None
    measured = _explained(early, shared, values)
    shuffle = random.Random(0).sample
    largest = sorted(max(_explained(early, shared, shuffle(values, len(values))).values()) for _ in range(20))
    names, shares = list(measured), list(measured.values())
    figure = blank(70 + 26 * len(names), "", "")
    figure.add_bar(
        x=shares,
        y=_leaves(names),
        customdata=names,
        orientation="h",
        marker_color=[BLUE if share > largest[-2] else GREY for share in shares],
        hovertemplate="%{customdata}: %{x:.1%}<extra></extra>",
    )
    note = {"annotation_text": "by chance", "annotation_position": "top", "annotation_font_size": 11}
    figure.add_vline(largest[-2], line={"color": ORANGE, "width": 2, "dash": "dot"}, **note)
    return figure.update_yaxes(autorange="reversed", showgrid=False).update_xaxes(tickformat=".0%", rangemode="tozero")


def _shared_parameters(early: optuna.Study) -> list[str]:
    """The parameters that every trial has, whatever branches it took."""
    return sorted(set.intersection(*(set(trial.params) for trial in early.trials))) if early.trials else []


def _explained(early: optuna.Study, parameters: list[str], values: Sequence[float]) -> dict[str, float]:
    def value(trial: FrozenTrial) -> float:
        return values[trial.number]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `normalize`
        return optuna.importance.get_param_importances(
            early,
            evaluator=optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0),
            params=parameters,
            target=value,
            normalize=False,
        )


def parallel(early: optuna.Study, metric: str) -> go.Figure | None:
    """Trials as lines through the parameters that all of them have; None if there is nothing to compare."""
    shared = _shared_parameters(early)
    if len(early.trials) < 2 or not shared:
        return None
    figure = optuna.visualization.plot_parallel_coordinate(early, shared, target_name=metric)
    figure.update_layout(title=None, template="none", height=440, dragmode=False, plot_bgcolor="white")
    figure.update_layout(margin={"l": 50, "r": 10, "t": 30, "b": 60}, font={"family": "system-ui, sans-serif"})
    figure.update_annotations(bgcolor="rgba(255, 255, 255, 0.8)")
    return figure.update_xaxes(ticktext=[metric, *_leaves(shared)])


def _leaves(names: Sequence[str]) -> list[str]:
    """The last parts of dotted names, where they are unique: a narrow page has no room for more."""
    leaves = [name.rpartition(".")[2] for name in names]
    return [leaf if leaves.count(leaf) == 1 else name for leaf, name in zip(leaves, names, strict=True)]
