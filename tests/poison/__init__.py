"""Poison: every input of the catalogue, made from a computed phantom, with what has to become of it."""
