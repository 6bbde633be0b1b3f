"""Paired tests, intervals, and the analysis that turns runs into a comparison."""
