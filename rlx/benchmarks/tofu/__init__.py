"""TOFU's scores, logs and ROUGE."""
