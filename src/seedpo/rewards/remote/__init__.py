"""Rewards that a server computes: how it is asked, what is kept of its answers, and a server for one's own rewards."""
