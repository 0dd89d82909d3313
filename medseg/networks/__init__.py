"""Networks that segment: knows torch, knows no files, no HU and no labels."""

from medseg.networks.optimized_unet import Optimized3DUNet
