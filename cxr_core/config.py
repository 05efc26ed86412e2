"""One training's configuration: typed, frozen, and the same thing flat (`model.small_cnn.width`) for records."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from torch import nn

from cxr_core.augmentations import augmentations
from cxr_core.labels import Task
from cxr_core.losses import losses
from cxr_core.models import Footprint, build_model, measure_model, models
from cxr_core.normalisations import normalisations
from cxr_core.optimizers import optimizers
from cxr_core.registry import Chosen, Parameter, Range, Registry, Scalar, parameter
from cxr_core.samplers import samplers
from cxr_core.schedules import schedules
from cxr_core.views import Views

__all__ = ["SEARCHABLE", "Task", "TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training, completely: everything from `model` on may be searched.

    lr is the peak learning rate; dropout lies before the last linear layer; ema is the decay of the weights' moving
    average, 0 for none; clip bounds the gradient's norm. head_bias lets the findings start at their prevalences.
    centre_crop is the side of the central square that the network is given after augmentation, None for all of it.
    micro_batch bounds the films in memory at once: larger batches accumulate gradients; None for no bound.
    flip_tta averages predictions with those of mirrored films, where the training mirrored films, too; zoom_tta with
    those of two smaller pictures of each film, see `Views`; where films of other hospitals are cut more closely.
    compile is for torch.compile, which takes minutes to pay off and needs a C++ compiler; without one the training
    says so and goes on uncompiled. Compiled dropout draws other masks.
    """

    task: Task
    image_size: int
    seed: int = 0

    model: Annotated[Chosen, models]
    schedule: Annotated[Chosen, schedules] = Chosen("cosine")
    loss: Annotated[Chosen, losses] = Chosen("bce")
    sampler: Annotated[Chosen, samplers] = Chosen("uniform")
    optimizer: Annotated[Chosen, optimizers] = Chosen("adamw")
    augment: Annotated[Chosen, augmentations] = Chosen("standard")
    normalize: Annotated[Chosen, normalisations] = Chosen("zscore")
    epochs: Annotated[int, Range(1, 10_000)] = 20
    batch_size: Annotated[int, Range(3, 4096)] = 64
    lr: Annotated[float, Range(1e-8, 10)] = 1e-3
    dropout: Annotated[float, Range(0, 0.95)] = 0.0
    ema: Annotated[float, Range(0, 0.99999)] = 0.0
    clip: Annotated[float, Range(0.01, 1000)] = 5.0
    head_bias: bool = False
    centre_crop: Annotated[int | None, Range(8, 4096)] = None
    micro_batch: Annotated[int | None, Range(1, 4096)] = None
    flip_tta: bool = False
    zoom_tta: Annotated[float, Range(0, 0.5)] = 0.0
    compile: bool = False

    @property
    def mirrors(self) -> bool:
        """Whether predictions are averaged with those of mirrored films."""
        return self.flip_tta and bool(self.augment.params.get("horizontal_flip", False))

    @property
    def views(self) -> Views:
        """The views of a film over which its probabilities are averaged."""
        return Views(self.mirrors, self.zoom_tta)

    def network(self, *, pretrained: bool = True) -> nn.Module:
        """The network, with its initial weights. Raises Infeasible.

        pretrained: False leaves out weights trained elsewhere, where all weights are replaced anyway.
        """
        size, outputs = self.image_size, len(self.task.labels)
        return build_model(self.model, size, outputs, self.dropout, crop=self.centre_crop, pretrained=pretrained)

    def footprint(self) -> Footprint:
        """The network's size, found without memory or weights. Raises Infeasible."""
        return measure_model(self.model, self.image_size, len(self.task.labels), self.dropout, crop=self.centre_crop)

    @property
    def flat(self) -> dict[str, Scalar]:
        """What may be searched, by dotted name, defaults of components included."""
        flat: dict[str, Scalar] = {}
        for key, slot in SEARCHABLE.items():
            value = getattr(self, key)
            if not isinstance(slot, Registry):
                flat[key] = value
                continue
            flat[key] = value.name
            for name, schema in slot[value.name].parameters.items():
                flat[f"{key}.{value.name}.{name}"] = value.params.get(name, schema.default)
        return flat

    @classmethod
    def from_flat(cls, flat: Mapping[str, Scalar], task: Task, image_size: int, seed: int = 0) -> "TrainConfig":
        """Rebuild a configuration from dotted names; names of branches that are not chosen may be present."""
        values: dict[str, Any] = {}
        for key, slot in SEARCHABLE.items():
            if key in flat and isinstance(slot, Registry):
                prefix = f"{key}.{flat[key]}."
                params = {name.removeprefix(prefix): flat[name] for name in flat if name.startswith(prefix)}
                values[key] = Chosen(str(flat[key]), params)
            elif key in flat:
                values[key] = flat[key]
        return cls(task=task, image_size=image_size, seed=seed, **values)


def _searchable() -> dict[str, Parameter | Registry]:
    hints = get_type_hints(TrainConfig, include_extras=True)
    slots: dict[str, Parameter | Registry] = {}
    for field in fields(TrainConfig):
        if field.name in ("task", "image_size", "seed"):
            continue
        hint = hints[field.name]
        is_component = get_origin(hint) is Annotated and get_args(hint)[0] is Chosen
        slots[field.name] = get_args(hint)[1] if is_component else parameter(field.name, hint, field.default)
    return slots


SEARCHABLE: dict[str, Parameter | Registry] = _searchable()
"""What a space file may search: a registry where a component is chosen, the schema of a number elsewhere."""
