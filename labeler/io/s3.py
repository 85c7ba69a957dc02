"""S3: how this project configures s3fs, in every process.

Endpoint, profile, and anonymous access are set as s3fs documents it (`FSSPEC_S3_ENDPOINT_URL` and
the like, a file in ~/.config/fsspec, AWS_* variables) or by `use`. Credentials are never taken as
an argument here, printed, or stored.

Retries    429, 5xx, SlowDown, timeouts, and broken connections are tried again: by botocore up to
           `ATTEMPTS` times with exponential backoff and jitter (its "standard" mode), and around
           that five times by s3fs, which also reads a broken body again. What is left after that
           is a `TransientError`: the unit is tried again twice, and then stays open.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import fsspec

ATTEMPTS = 6
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
VARIABLE = "FSSPEC_S3"
"""The variable from which child processes and Ray workers read the settings of `use`."""

DEFAULTS: dict[str, Any] = {
    "config_kwargs": {
        "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
    }
}


def prepare() -> None:
    """Give s3fs our retries and timeouts, unless the user's own configuration has some."""
    settings = fsspec.config.conf.setdefault("s3", {})
    for name, value in DEFAULTS.items():
        settings.setdefault(name, value)


def use(*, endpoint: str | None = None, profile: str | None = None, anon: bool = False) -> None:
    """Set the endpoint, the profile, or anonymous access for this process and those that it
    starts."""
    given = {"endpoint_url": endpoint, "profile": profile, "anon": anon or None}
    settings = {name: value for name, value in given.items() if value is not None}
    if settings:
        before = json.loads(os.environ.get(VARIABLE, "{}"))
        os.environ[VARIABLE] = json.dumps({**before, **settings})
        fsspec.config.conf.setdefault("s3", {}).update(settings)


def variables() -> dict[str, str]:
    """The environment variables that a worker on another machine needs to reach the same storage:
    settings, no credentials."""
    settings = {
        name: value
        for name, value in fsspec.config.conf.get("s3", {}).items()
        if name in ("endpoint_url", "profile", "anon")
    }
    regional = {
        name: os.environ[name]
        for name in ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        if name in os.environ
    }
    return regional | ({VARIABLE: json.dumps(settings)} if settings else {})


ADVICE = {
    "EndpointConnectionError": "no server answers at that address",
    "ConnectTimeoutError": "no server answers at that address",
    "NoCredentialsError": "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, from "
    "~/.aws/credentials, or from the machine's role; --s3-anon reads public buckets without any",
    "PartialCredentialsError": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together",
    "ProfileNotFound": "--s3-profile takes the name of a profile in ~/.aws/credentials or "
    "~/.aws/config",
    "NoSuchBucket": "create the bucket, or correct its name",
    "PermissionError": "the storage refuses these credentials, or they do not permit this",
}
"""What helps against an error, by the name of its class, or of that of its cause."""


def advice(error: BaseException) -> str:
    """What a user can do about an error of S3; "" if nothing is known, or it is not of S3."""
    name, cause = type(error).__name__, type(error.__cause__)
    if cause.__module__.partition(".")[0] == "botocore":
        name = cause.__name__ if cause.__name__ in ADVICE else name
    elif not type(error).__module__.startswith(("botocore", "aiobotocore")):
        return ""  # a PermissionError of a local disk, say
    text = ADVICE.get(name, "")
    if name in ("EndpointConnectionError", "ConnectTimeoutError"):
        text += (
            ": check --s3-endpoint"
            if _endpoint()
            else ". Storage other than AWS is named by --s3-endpoint URL, or by "
            "AWS_ENDPOINT_URL_S3, which Python takes too"
        )
    return text


def _endpoint() -> str | None:
    """The endpoint that somebody has set, if any."""
    return fsspec.config.conf.get("s3", {}).get("endpoint_url") or next(
        (
            os.environ[name]
            for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
            if os.environ.get(name)
        ),
        None,
    )


def lacks_bucket(error: BaseException) -> bool:
    """Whether an error says that there is no such bucket, rather than no such object."""
    return type(error.__cause__).__name__ == "NoSuchBucket"


def is_s3(fs: Any) -> bool:
    """Whether this is s3fs's file system."""
    protocol = getattr(fs, "protocol", ())
    return "s3" in ((protocol,) if isinstance(protocol, str) else tuple(protocol))


def entries(fs: Any, path: str, *, delimiter: str = "") -> Iterator[dict[str, Any]]:
    """The objects whose keys begin with `path/`, sorted, as s3fs's `ls` gives them; one page of the
    listing is held at a time.

    Args:
        delimiter: "/" leaves out what lies in folders below; "" lists everything.
    """
    bucket, key, _ = fs.split_path(path)
    prefix = f"{key.rstrip('/')}/" if key else ""
    more: dict[str, str] = {}
    while True:
        page = fs.call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter=delimiter, **more
        )
        for one in page.get("Contents", ()):
            if not one["Key"].endswith("/"):  # the marker of a folder, as the console makes it
                yield {
                    "name": f"{bucket}/{one['Key']}",
                    "type": "file",
                    "size": one["Size"],
                    "ETag": one["ETag"],
                }
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}
