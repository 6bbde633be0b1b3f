"""The Ray cluster backend: translation of a spec to verl, its limits, and the plugin."""
