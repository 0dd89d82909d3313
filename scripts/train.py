"""Train a model from one config: a YAML file or the name of a preset. The same as `medseg train`.

Example: python scripts/train.py head-neck-oar --out runs/head-neck
"""

from __future__ import annotations

import sys

from medseg.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
