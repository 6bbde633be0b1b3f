"""Values to gradients to weights; the only room that knows accelerate."""
