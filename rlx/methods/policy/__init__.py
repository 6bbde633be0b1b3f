"""One file, one policy loss: a pure function from log-probs to per-token loss values."""
