"""Sampled evaluation on benchmarks."""
