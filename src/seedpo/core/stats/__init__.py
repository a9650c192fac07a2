"""Statistics over prompts: numpy and the standard library only."""
