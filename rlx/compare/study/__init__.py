"""Running the experiments of a study."""
