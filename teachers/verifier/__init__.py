"""The verifier of Track-On-R: a network that says which of several teachers to believe."""

from teachers.verifier.network import VerifierConfig, VerifierNetwork
from teachers.verifier.verifier import TrackOnVerifier, VerifierInfo, load_verifier, names

__all__ = [
    "TrackOnVerifier",
    "VerifierConfig",
    "VerifierInfo",
    "VerifierNetwork",
    "load_verifier",
    "names",
]
