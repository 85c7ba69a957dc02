"""Flags from a config dataclass (tyro), with `--config FILE` (TOML) for defaults. A flag on the command line beats the file."""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from pathlib import Path
from typing import Any, TypeVar

import tyro

from teachers.errors import ConfigError

C = TypeVar("C")


def parse(config: type[C], program: str, arguments: list[str]) -> C:
    """An instance of the dataclass `config` from flags, and from the TOML file that `--config` names.

    Raises:
        ConfigError: the file is missing, not TOML, or names a field that does not exist; or the values cannot be right.
        SystemExit: `--help`, or flags that do not parse (exit code 2, as every command line does).
    """
    arguments, file = _without_config_flag(arguments)
    default: Any = _from_toml(config, file, arguments) if file else tyro.MISSING_NONPROP
    return tyro.cli(
        config, prog=program, args=arguments, default=default, config=(tyro.conf.FlagCreatePairsOff,), console_outputs=True
    )


def _without_config_flag(arguments: list[str]) -> tuple[list[str], Path | None]:
    for i, argument in enumerate(arguments):
        if argument == "--config":
            if i + 1 == len(arguments):
                raise ConfigError("--config needs a file name.")
            return arguments[:i] + arguments[i + 2 :], Path(arguments[i + 1])
        if argument.startswith("--config="):
            return arguments[:i] + arguments[i + 1 :], Path(argument.removeprefix("--config="))
    return arguments, None


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
        raise ConfigError(f"{where} sets {unknown[0]!r}, which {config.__name__} does not have: there are {', '.join(fields)}.")
    types = typing.get_type_hints(config)
    filled: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in values:
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if required:
                filled[name] = tyro.MISSING
        elif dataclasses.is_dataclass(types[name]) and isinstance(values[name], dict):
            filled[name] = _filled(typing.cast(type, types[name]), values[name], f"{where} [{name}]")
        else:
            filled[name] = tuple(values[name]) if isinstance(values[name], list) else values[name]
    return config(**filled)
