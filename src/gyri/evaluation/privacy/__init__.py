"""Whether samples, or the model that made them, give training subjects away."""
