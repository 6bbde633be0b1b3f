"""Samplers: prompts in, sampled responses with their log-probs out."""
