"""The embedded world: drawings with known truth."""
