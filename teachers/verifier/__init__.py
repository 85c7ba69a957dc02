"""The verifier of Track-On-R: a network that says which of several teachers to believe."""

from teachers.verifier.network import VerifierConfig, VerifierNetwork
from teachers.verifier.verifier import Verifier, VerifierInfo, load_verifier, names

__all__ = [
    "Verifier",
    "VerifierConfig",
    "VerifierInfo",
    "VerifierNetwork",
    "load_verifier",
    "names",
]
