"""Images as vectors, and the metrics that look at them."""
