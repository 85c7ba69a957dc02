"""What benchmarks and tests of whole jobs run on: small jobs, teachers that stand still, an S3
server that fails."""
