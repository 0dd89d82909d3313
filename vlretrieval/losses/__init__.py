"""What is pulled together and pushed apart, and how several losses become one. Knows tensors alone."""

from vlretrieval.losses.contrastive import info_nce, sigmoid_pairs, statements, truth_of
from vlretrieval.losses.weighting import DynamicLoss

__all__ = ["DynamicLoss", "info_nce", "sigmoid_pairs", "statements", "truth_of"]
