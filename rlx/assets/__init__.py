"""The embedded tiny models and the scripts that make them."""
