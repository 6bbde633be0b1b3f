"""Specs that users write and their resolution into complete experiments. Does not import torch."""
