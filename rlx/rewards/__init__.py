"""Grading: an answer and its gold in, a verdict with a reason out; shared by training and benchmarks."""
