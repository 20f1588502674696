"""Losses: sums or per-utterance values in fp32; who calls them declares the normaliser."""
