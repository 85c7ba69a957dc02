"""The training loop: students, losses, schedule, checkpoints."""
