"""What a set of labelled pairs holds, what in it would stop a run, what it shares with others, and pictures of it."""
