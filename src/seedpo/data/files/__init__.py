"""What lies at a place: which files belong to a set, of which format and which split."""
