"""One module for each family of pipelines, and what they share."""
