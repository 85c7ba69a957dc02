"""Secrets: no address that is stored or shown may hold a password or a signature.

    https://user:password@host/a.mp4         refused: plans, records, shards, and messages would
                                             hold the password
    https://host/a.mp4?X-Amz-Signature=...   refused, too: whoever has the signature gets in
    https://***@host/a.mp4                   how messages show the first

A password may contain '/', '?', or '#' (keys of S3 do), and an address may be inside another one
("simplecache::https://..."), so addresses are searched as plain text.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from teachers import ConfigError

_ADDRESS = re.compile(r"\w[\w+.:-]*://[^\s\"<>\\]+")
_USER = re.compile(r"(?<!file)://(?:[^/?#:\s]*|[^/?#:@\s\[]+:(?!:|\d+(?:[/?#]|$))\S*)@")
"""A user, or a user and a password; what follows a ':' must not be a port."""
_PARAMETER = re.compile(r"([?&;#])([^=&;#?\s]+)=([^&;#\s]+)")
_SECRET = re.compile(
    r"signature|token|secret|passw|credential|hmac|jwt|api[-_]?key|access[-_]?key|^auth(?:$|[-_])|authoriz|oauth|^(?:sig|pass|pwd|key|hdnea|hdnts)$"
)
"""Names of parameters that give access to whoever reads them."""


def refuse_secrets(address: str, where: str = "") -> None:
    """Raise a ConfigError for an address that holds a password or a signature, without showing it.

    `where` says which entry of a list it is.
    """
    if "://" not in address:
        return
    what = f"{where or without_secrets(address)}"
    if _USER.search(address):
        raise ConfigError(
            f"{what}: a URL must not hold a user or a password. Give them through the environment "
            "or a profile of the storage."
        )
    secret = next((name for _, name, _ in _PARAMETER.findall(address) if _is_secret(name)), None)
    if secret:
        raise ConfigError(
            f"{what}: the address holds a {secret!r}, which would be stored with the labels. Give "
            "addresses that need none, and credentials through the environment."
        )


def without_secrets(text: str) -> str:
    """`text` with '***' for the users, passwords, and signatures of the addresses in it."""
    return _ADDRESS.sub(lambda found: _masked(found[0]), text) if "://" in text else text


def _masked(address: str) -> str:
    return _PARAMETER.sub(
        lambda found: f"{found[1]}{found[2]}=***" if _is_secret(found[2]) else found[0],
        _USER.sub("://***@", address),
    )


def _is_secret(name: str) -> bool:
    return _SECRET.search(unquote(name).lower()) is not None
