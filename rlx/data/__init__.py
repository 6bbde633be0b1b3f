"""Reading prompts and turning them into tokens."""
