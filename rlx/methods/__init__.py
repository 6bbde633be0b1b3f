"""Policy losses and unlearning methods, one file each."""
