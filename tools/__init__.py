"""What maintainers run: building and measuring the embedded world."""
