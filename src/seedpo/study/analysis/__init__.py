"""What the votes of a study say, and how many votes a study needs."""
