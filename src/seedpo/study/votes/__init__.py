"""The votes of a study in a database: durable, fast, and deleted only at a rater's request."""
