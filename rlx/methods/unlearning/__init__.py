"""One file, one unlearning method: a pure function from model outputs to loss terms."""
