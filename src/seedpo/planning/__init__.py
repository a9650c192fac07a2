"""What a run would cost, before anything is loaded: forward passes, FLOPs, memory and hours.

Networks are built on the meta device from configuration files alone, in the very classes that a run uses; the numbers
of forward passes are small rules, one per source of pairs, and those that a run makes (the tests compare).
"""
