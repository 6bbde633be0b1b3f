"""The stories, each one function that reads top to bottom."""
