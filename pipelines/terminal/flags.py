"""Flags from a config dataclass (tyro), with defaults from `--config FILE` (TOML). A flag on the
command line overrides the file.

A config that has `RECIPES`, a folder of such files, also takes `--recipe NAME`, which stands for
`--config RECIPES/NAME.toml`.

TOML has no null: "None" stands for it, as on the command line.

Every command also takes --s3-endpoint, --s3-profile, and --s3-anon, because every command may read
or write S3."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    UnsupportedTypeAnnotationError,
)

from pipelines.terminal.console import say
from teachers.errors import ConfigError

C = TypeVar("C")

_URL_AS_PATH = re.compile(r"([a-z][a-z0-9+]+):/+(.*)", re.IGNORECASE)
"""What `Path` makes of a URL: "s3:/bucket/folder"."""

UNPREFIXED = tyro.conf.arg(name="")
"""Marks a config inside another one whose flags are written without its name."""


def parse(config: type[C], program: str, arguments: list[str]) -> C:
    """An instance of the dataclass `config` from flags, and from the TOML file that `--config`
    names.

    Raises:
        ConfigError: the file is missing, is not TOML, or names a field that does not exist; or the
            values cannot be right.
        SystemExit: `--help`, or flags that do not parse (exit code 2, as every command line does).
    """
    arguments, file = _without_flag("--config", arguments)
    recipes: Path | None = getattr(config, "RECIPES", None)
    if recipes:
        arguments, recipe = _without_flag("--recipe", arguments)
        if recipe and file:
            raise ConfigError("--recipe and --config: give one of them.")
        file = _recipe(recipes, str(recipe)) if recipe else file
    arguments = _gathered(config, _without_sections(config, arguments))
    default: Any = _from_toml(config, file, arguments) if file else tyro.MISSING_NONPROP
    registry = ConstructorRegistry()
    registry.primitive_rule(_NothingIsNone())
    try:
        parsed = tyro.cli(
            config,
            prog=program,
            args=arguments,
            default=default,
            config=(tyro.conf.FlagCreatePairsOff,),
            console_outputs=True,
            registry=registry,
        )
    except SystemExit as end:
        if not end.code:
            say(_of_every_command(recipes))
        raise
    _refuse_urls_for_paths(parsed)
    return parsed


class _NothingIsNone:
    """A rule of tyro for tuples of any number of values: as it has it, but the default of a flag
    that takes none is said to be "none", where tyro says nothing."""

    def __init__(self) -> None:
        self._asking = False

    def __call__(self, info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if self._asking or typing.get_args(info.type)[1:] != (Ellipsis,):
            return None
        self._asking = True  # for the rule of tyro's own
        try:
            found = ConstructorRegistry.get_primitive_spec(info)
        finally:
            self._asking = False
        if isinstance(found, UnsupportedTypeAnnotationError):
            raise found
        said = found.str_from_instance
        return dataclasses.replace(found, str_from_instance=lambda value: said(value) or ["none"])


def _refuse_urls_for_paths(config: object) -> None:
    """A path of this machine that is a URL would become a folder named "s3:"."""
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if isinstance(value, Path) and (found := _URL_AS_PATH.match(str(value))):
            protocol, rest = found.groups()
            raise ConfigError(
                f"{protocol}://{rest}: this is written to or read from a path of this machine, not "
                "a URL. Give a path, and copy it, for instance with `aws s3 cp --recursive`."
            )


def _of_every_command(recipes: Path | None) -> str:
    """What `--help` says of the flags that are not in a config."""
    rows = [
        ("--config FILE", "defaults for these flags, in TOML"),
        ("--s3-endpoint URL", "the server of s3:// addresses, unless it is AWS"),
        ("--s3-profile NAME", "a profile in ~/.aws/credentials"),
        ("--s3-anon", "no credentials, for public buckets"),
    ]
    if recipes:
        names = " or ".join(sorted(path.stem for path in recipes.glob("*.toml")))
        rows.insert(1, ("--recipe NAME", f"defaults that come with the package: {names}"))
    return "\n".join(["flags of every command:"] + [f"  {flag:<18} {text}" for flag, text in rows])


def _without_flag(flag: str, arguments: list[str]) -> tuple[list[str], Path | None]:
    """The arguments without `flag`, and its value."""
    for i, argument in enumerate(arguments):
        if argument == flag:
            if i + 1 == len(arguments):
                raise ConfigError(
                    f"{flag} needs a {'file' if flag == '--config' else 'recipe'} name."
                )
            return arguments[:i] + arguments[i + 2 :], Path(arguments[i + 1])
        if argument.startswith(f"{flag}="):
            return arguments[:i] + arguments[i + 1 :], Path(argument.removeprefix(f"{flag}="))
    return arguments, None


def _recipe(folder: Path, name: str) -> Path:
    there = sorted(path.stem for path in folder.glob("*.toml"))
    if name not in there:
        raise ConfigError(
            f"--recipe {name}: there are {', '.join(there)}; for a file of your own give --config "
            "FILE."
        )
    return folder / f"{name}.toml"


def _without_sections(config: type, arguments: list[str]) -> list[str]:
    """The arguments, in which a flag that is written with the TOML section of its field, such as
    `--data.strides`, has the name that the command gives it, `--strides`."""
    sections = tuple(
        f"--{name}."
        for name, noted in typing.get_type_hints(config, include_extras=True).items()
        if UNPREFIXED in typing.get_args(noted)
    )
    return [
        f"--{argument.partition('.')[2]}" if argument.startswith(sections) else argument
        for argument in arguments
    ]


def _gathered(config: type, arguments: list[str]) -> list[str]:
    """The arguments, in which a flag for a tuple that is given several times is given once, with
    all its values; tyro would take only the last."""
    tuples = _tuple_flags(config)
    gathered: dict[str, list[str]] = {}
    rest: list[str] = []
    values = rest
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        flag = flag.replace("_", "-")
        if argument.startswith("--"):
            values = gathered.setdefault(flag, []) if flag in tuples else rest
            if values is rest:
                rest.append(argument)
            elif equals:
                values.append(value)
        else:
            values.append(argument)
    return rest + [part for flag, given in gathered.items() for part in (flag, *given)]


def _tuple_flags(config: type, prefix: str = "") -> set[str]:
    """The flags of this dataclass, and of those in it, that take any number of values."""
    flags: set[str] = set()
    for name, noted in typing.get_type_hints(config, include_extras=True).items():
        kind, *notes = (
            typing.get_args(noted) if typing.get_origin(noted) is typing.Annotated else (noted,)
        )
        if dataclasses.is_dataclass(kind):
            flags |= _tuple_flags(
                typing.cast(type, kind), prefix if UNPREFIXED in notes else f"{prefix}{name}."
            )
        elif typing.get_args(kind)[1:] == (Ellipsis,):
            flags.add(f"--{prefix}{name}".replace("_", "-"))
    return flags


def _from_toml(config: type, file: Path, arguments: list[str]) -> Any:
    try:
        values = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"--config {file}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file} is not TOML: {error}.") from error
    return _filled(config, values, str(file))


def _filled(config: type, values: dict[str, Any], where: str) -> Any:
    """The dataclass with `values`; required fields that the file leaves out stay required flags."""
    fields = {field.name: field for field in dataclasses.fields(config)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(
            f"{where} sets {unknown[0]!r}, which {config.__name__} does not have: there are "
            f"{', '.join(fields)}."
        )
    kinds = typing.get_type_hints(config)
    filled: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in values:
            required = (
                field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING
            )
            if required:
                filled[name] = tyro.MISSING
        elif dataclasses.is_dataclass(kinds[name]) and isinstance(values[name], dict):
            filled[name] = _filled(
                typing.cast(type, kinds[name]), values[name], f"{where} [{name}]"
            )
        else:
            try:
                filled[name] = _converted(kinds[name], values[name])
            except ValueError as error:
                kind = (
                    kinds[name].__name__
                    if isinstance(kinds[name], type)
                    else str(kinds[name]).replace("typing.", "")
                )
                raise ConfigError(f"{where}: {name} = {values[name]!r}: must be {kind}.") from error
    return config(**filled)


def _converted(kind: Any, value: Any) -> Any:
    """A value from a TOML file as a flag of type `kind` would give it; a ValueError if it is of
    another type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value == "None" and type(None) in inner:
            return None
        for one in inner:
            with contextlib.suppress(ValueError):
                return _converted(one, value)
    elif origin is tuple and isinstance(value, list):
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_converted(one, item) for one, item in zip(kinds, value, strict=True))
    elif (origin is typing.Literal and value in inner) or type(value) is kind:
        return value
    elif kind is float and type(value) is int:
        return float(value)
    elif kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{value!r} is not {kind}")


STORAGE_WITH_VALUE = ("--s3-endpoint", "--s3-profile")

STORAGE_ALONE = "--s3-anon"


def take_storage_flags(arguments: list[str]) -> list[str]:
    """Apply the storage flags to this process and those that it starts; returns the other
    arguments.

    Raises:
        ConfigError: a flag has no value, or the endpoint is not an http address, or contains a
            password.
    """
    values: dict[str, str] = {}
    rest: list[str] = []
    coming = iter(arguments)
    for argument in coming:
        name, separator, value = argument.partition("=")
        if name in STORAGE_WITH_VALUE:
            values[name] = value if separator else next(coming, "")
            if not values[name]:
                raise ConfigError(f"{name} needs a value.")
        elif argument == STORAGE_ALONE:
            values[STORAGE_ALONE] = "yes"
        else:
            rest.append(argument)
    if values:
        from labeler.io import s3  # here, because it imports fsspec

        s3.use(
            endpoint=_checked_endpoint(values.get("--s3-endpoint")),
            profile=values.get("--s3-profile"),
            anon=STORAGE_ALONE in values,
        )
    return rest


def _checked_endpoint(endpoint: str | None) -> str | None:
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "--s3-endpoint: give an address such as https://storage.example.org:9000."
        )
    if "@" in parts.netloc:
        raise ConfigError(
            "--s3-endpoint holds a user or a password: give credentials through the environment or "
            "a profile."
        )
    return endpoint
