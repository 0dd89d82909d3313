"""Figures of retrieval that can be trusted. Knows arrays and names; knows no encoder and no store."""
