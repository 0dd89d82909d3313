"""Networks that segment: knows torch, knows no files, no HU and no labels."""
