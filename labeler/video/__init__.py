"""Video files: scanning, decoding, encoding, fetching, and writing them."""
