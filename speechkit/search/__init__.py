"""Searches: tensors in, hypotheses out; none of them knows a model class."""
