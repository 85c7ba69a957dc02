"""TAPIR, BootsTAPIR, and causal BootsTAPIR."""
