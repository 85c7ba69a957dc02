"""What runs the units of a job: this process, or a Ray cluster."""
