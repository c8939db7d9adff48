"""F(w): samples, losses, parameters, the objective and its gradients."""
