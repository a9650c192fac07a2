"""The benchmark of reward hacking: what its runs say."""
