"""Run the experiments of a study."""
