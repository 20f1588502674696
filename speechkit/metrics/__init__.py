"""Scoring: error rates, significance, reports."""
