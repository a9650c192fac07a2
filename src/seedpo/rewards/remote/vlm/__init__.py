"""Rewards that a vision-language model gives: what it is asked, how its answers are read, and what follows of them."""
