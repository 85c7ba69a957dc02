"""Flags that every command takes, because every command may read or write S3: --s3-endpoint, --s3-profile, --s3-anon."""

from __future__ import annotations

from urllib.parse import urlsplit

from teachers.errors import ConfigError

HELP = "Each takes --s3-endpoint URL, --s3-profile NAME, and --s3-anon for s3:// addresses; credentials come from the environment."
WITH_VALUE = ("--s3-endpoint", "--s3-profile")
ALONE = "--s3-anon"


def take(arguments: list[str]) -> list[str]:
    """The other arguments; what these flags say is set for this process and those that it starts.

    Raises:
        ConfigError: a flag without its value, or an endpoint that is no http address, or holds a password.
    """
    values: dict[str, str] = {}
    rest: list[str] = []
    coming = iter(arguments)
    for argument in coming:
        name, separator, value = argument.partition("=")
        if name in WITH_VALUE:
            values[name] = value if separator else next(coming, "")
            if not values[name]:
                raise ConfigError(f"{name} needs a value.")
        elif argument == ALONE:
            values[ALONE] = "yes"
        else:
            rest.append(argument)
    if values:
        from labeler import s3  # here, because it imports fsspec

        s3.use(endpoint=_checked(values.get("--s3-endpoint")), profile=values.get("--s3-profile"), anon=ALONE in values)
    return rest


def _checked(endpoint: str | None) -> str | None:
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("--s3-endpoint: give an address such as https://storage.example.org:9000.")
    if "@" in parts.netloc:
        raise ConfigError("--s3-endpoint holds a user or a password: give credentials through the environment or a profile.")
    return endpoint
