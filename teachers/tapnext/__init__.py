"""TAPNext, BootsTAPNext, TAPNext++: one causal network that goes through video with a state. Read
`network.py` first."""
