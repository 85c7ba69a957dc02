"""From shards and synthetic video to training batches."""
