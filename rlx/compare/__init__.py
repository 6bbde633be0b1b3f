"""Compare methods: statistics over runs and problems that show whether a difference is significant, and reports."""
