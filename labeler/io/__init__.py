"""Files wherever they lie: folders, S3, scratch space, and addresses that hold secrets."""
