"""Architecture families; a family is one registered function in one file of this package."""

from cxr_core.models import inception_resnet, small_cnn, timm_nets  # noqa: F401  (importing a family registers it)
from cxr_core.models.registry import Footprint, Infeasible, build_model, measure_model, models

__all__ = ["Footprint", "Infeasible", "build_model", "measure_model", "models"]
