"""Clustering: frames to discrete labels, the targets of masked prediction, and how good these labels are."""
