"""Where a resolved experiment runs."""
