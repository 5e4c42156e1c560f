"""A one-class detector: what is far from every normal patch is a defect. Generated defects only tune it.

Reference: docs/evaluation.md, "One class". Patch features of a frozen encoder, a memory of normal patches thinned by a
greedy coreset, distance to the nearest one (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR
2022). Ours: features are standardised by the normals, and a weight per channel can be learnt from defects.
"""

from flawsmith.evaluation.detectors.one_class.memory import NAME, OneClassConfig
from flawsmith.evaluation.detectors.one_class.values import run

__all__ = ["NAME", "OneClassConfig", "run"]
