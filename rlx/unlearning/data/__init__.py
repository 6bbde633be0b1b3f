"""Forget and retain requests, sensitive spans, data sets and their tokens."""
