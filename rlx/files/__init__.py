"""Reading rows from files and hub data sets, and hashing them; used by specs (run ids) and by every workflow."""
