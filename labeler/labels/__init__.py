"""From the tracks of several teachers to labels: agreement, and whose track is the label."""
