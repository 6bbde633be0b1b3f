"""Run folders, metric recorders, trackers and stop signals."""
