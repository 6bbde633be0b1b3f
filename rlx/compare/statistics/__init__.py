"""Paired tests, intervals and the analysis of a comparison."""
