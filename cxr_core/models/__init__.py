"""Architecture families; a family is one registered function in one file of this package."""

from cxr_core.models import (  # noqa: F401  (importing a family registers it)
    inception_resnet,
    inception_v4,
    mini_inception_v3,
    multiscale_flatten,
    multiscale_gap,
    small_cnn,
    timm_nets,
    two_conv,
    vgg_like,
)
from cxr_core.models.head import last_layers, logits_of_prevalence, set_head_bias
from cxr_core.models.registry import (
    Footprint,
    Infeasible,
    SeveralMaps,
    WithAuxiliary,
    build_model,
    measure_model,
    models,
)

__all__ = [
    "Footprint",
    "Infeasible",
    "SeveralMaps",
    "WithAuxiliary",
    "build_model",
    "last_layers",
    "logits_of_prevalence",
    "measure_model",
    "models",
    "set_head_bias",
]
