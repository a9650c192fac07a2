"""The mathematics: pure functions of tensors, with torch and the standard library only."""
