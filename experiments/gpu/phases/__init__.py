"""The phases of check.py; each is a function without arguments that saves its results."""
