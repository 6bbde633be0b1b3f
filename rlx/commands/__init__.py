"""One file a command of the command line: its options, and what it hands on. Heavy imports stand inside."""
