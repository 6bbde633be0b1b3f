"""Optimisations for a CUDA device."""
