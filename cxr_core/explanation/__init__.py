"""Explanations of a network: heat maps by Grad-CAM, how far they can be believed, and pictures of them."""

from cxr_core.explanation.feature_maps import FeatureMap, NoFeatureMap, find_feature_maps
from cxr_core.explanation.grad_cam import GradCam

__all__ = ["FeatureMap", "GradCam", "NoFeatureMap", "find_feature_maps"]
