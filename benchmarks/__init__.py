"""What measures something; each is run as `python -m benchmarks.NAME`."""
