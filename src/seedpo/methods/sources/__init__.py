"""Where pairs come from: a data set, whole trajectories, single steps."""
