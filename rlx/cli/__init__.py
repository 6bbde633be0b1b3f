"""The command line: one module per command, and the application that collects them."""
