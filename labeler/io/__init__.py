"""Files wherever they lie: folders, S3, scratch space, and addresses that hold secrets."""

from labeler.io.hashing import file_sha256
from labeler.io.storage import Storage, transient_errors

__all__ = ["Storage", "file_sha256", "transient_errors"]
