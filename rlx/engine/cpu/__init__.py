"""Optimisations that apply on CPUs only."""
