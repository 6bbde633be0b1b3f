"""One file, one benchmark: its rows, prompt, scorer and metrics."""
