"""The command line: one module a command, and the application that collects them."""
