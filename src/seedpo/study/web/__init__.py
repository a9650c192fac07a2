"""The web application of a study: its server, its pages, and what protects them."""
