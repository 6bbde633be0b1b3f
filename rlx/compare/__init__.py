"""Which method is better, and do the data allow saying so: statistics on runs x problems, and their reports."""
