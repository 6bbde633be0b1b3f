"""From loss values to gradients to new weights; the only package that uses accelerate."""
