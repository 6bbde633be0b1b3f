"""Pure tensor mathematics: no I/O, no model, no configuration."""
