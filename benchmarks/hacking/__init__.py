"""Which terms give more truth and no less diversity at equal proxy, above all controls, where the base method hacks."""
