"""Files wherever they lie: folders, S3, scratch space, and addresses that hold secrets."""

from labeler.io.storage import Storage, transient_errors
from teachers.hashing import file_sha256

__all__ = ["Storage", "file_sha256", "transient_errors"]
