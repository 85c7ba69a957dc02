"""What a verifier is trained with: tracks that go wrong, and the loss."""
