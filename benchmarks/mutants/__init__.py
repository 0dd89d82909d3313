"""Mutation testing: what can be changed in a source, which tests reach it, and one warm process that tries it out."""
