"""Training of the verifier that the package ships."""
