"""A labelling job: its config, how it runs, and how it stands."""
