"""How the embedded pipeline is made: architecture and training, from a seed."""
