"""XFeat: the network, and the teacher that matches its descriptors in every frame."""

from teachers.xfeat.network import XFeat, XFeatConfig
from teachers.xfeat.teacher import XFeatTeacher

__all__ = [
    "XFeat",
    "XFeatConfig",
    "XFeatTeacher",
]
