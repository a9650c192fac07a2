"""Every objective at its best learning rate and beta, from an equal budget of trials, in both embedded worlds."""
