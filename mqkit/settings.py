"""Configuration: arguments, then environment (`MQKIT_...`), then `mqkit.toml`, then defaults; and who decided what.

Policies of single groups can be set there, so that operators tune without a release:

    [groups."purchases.billing"]
    concurrency = 64
    retry = { attempts = 10, wait_max = 300 }
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError
from pydantic_settings import TomlConfigSettingsSource as Toml

from mqkit.durations import LONGEST
from mqkit.errors import ConfigurationError
from mqkit.handler import HandlerOptions
from mqkit.registry import masked

FILE = "mqkit.toml"
DEFAULT_URL = "sqlite:///mqkit.db"


class RetryPolicy(BaseModel):
    """What of a group's `Retry` is to be otherwise. Times are seconds."""

    model_config = ConfigDict(extra="forbid")

    attempts: Annotated[int | None, Field(ge=1)] = None
    wait_initial: Annotated[float | None, Field(ge=0, le=LONGEST)] = None
    wait_max: Annotated[float | None, Field(ge=0, le=LONGEST)] = None
    wait_factor: Annotated[float | None, Field(ge=1, allow_inf_nan=False)] = None
    wait_jitter: Annotated[float | None, Field(ge=0, le=1)] = None
    inline: Annotated[int | None, Field(ge=0)] = None


class GroupPolicy(BaseModel):
    """What of a group's options is to be otherwise."""

    model_config = ConfigDict(extra="forbid")

    concurrency: Annotated[int | None, Field(ge=1)] = None
    prefetch: Annotated[int | None, Field(ge=0)] = None
    prefetch_bytes: Annotated[int | None, Field(ge=1)] = None
    timeout: Annotated[float | None, Field(gt=0, le=LONGEST)] = None
    grace: Annotated[float | None, Field(ge=0, le=LONGEST)] = None
    lost_workers: Annotated[int | None, Field(ge=1)] = None
    ordering: Literal["key", "none"] | None = None
    retry: RetryPolicy = RetryPolicy()

    def apply(self, options: HandlerOptions) -> HandlerOptions:
        """`options` with what this policy says."""
        changes = {k: v for k, v in self.model_dump(exclude={"retry"}).items() if v is not None}
        retry = {k: v for k, v in self.retry.model_dump().items() if v is not None}
        return replace(options, **changes, retry=replace(options.retry, **retry))


class Settings(BaseSettings):
    """Everything about an app that is not code."""

    model_config = SettingsConfigDict(
        env_prefix="MQKIT_",
        env_nested_delimiter="__",
        toml_file=FILE,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    url: str = DEFAULT_URL
    """The broker."""
    service: str = "mqkit"
    """Who publishes: the CloudEvents `source`, and part of every dead letter."""
    version: str = ""
    """Of the service; stands in every dead letter."""
    declare: bool = True
    """Whether the app creates what is missing at the broker. False: it fails at start if something is."""
    connect_timeout: float = Field(10.0, gt=0, le=LONGEST)
    publish_timeout: float = Field(30.0, gt=0, le=LONGEST)
    """Seconds within which every publish ends."""
    grace: float = Field(30.0, ge=0, le=LONGEST)
    """Seconds that running handlers get after SIGTERM."""
    max_body_bytes: int = Field(16 * 1024 * 1024, gt=0)
    """A larger body is a dead letter."""
    disabled_plugins: Annotated[tuple[str, ...], NoDecode] = ()
    """Entry points to leave out; in the environment separated by commas."""
    groups: dict[str, GroupPolicy] = {}
    """`topic.group` -> what of its options is to be otherwise."""

    @field_validator("disabled_plugins", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return tuple(n.strip() for n in value.split(",") if n.strip()) if isinstance(value, str) else value

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """For people and logs: without passwords."""
        yield from ((name, masked(self.url) if name == "url" else value) for name, value in super().__repr_args__())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings' signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, mqkit.toml."""
        return init_settings, env_settings, Toml(settings_cls)


def load(arguments: Mapping[str, object]) -> Settings:
    """The settings, `arguments` (those that are not None) before everything else.

    Raises:
        ConfigurationError: one makes no sense; names it and where it stands.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type] # pydantic checks them
    except ValidationError as error:
        known = ", ".join(Settings.model_fields)
        problems = [
            f"{'.'.join(map(str, e['loc']))}: "
            + (
                f"no such setting; there is {known}"
                if e["type"] == "extra_forbidden" and len(e["loc"]) == 1
                else e["msg"]
            )
            for e in error.errors(include_url=False, include_context=False)
        ]
        raise ConfigurationError(f"settings (arguments, MQKIT_ environment, {FILE}): {'; '.join(problems)}") from error
    except (SettingsError, ValueError, OSError) as error:
        raise ConfigurationError(f"settings cannot be read ({FILE} or MQKIT_ environment): {error}") from error


def provenance(settings: Settings, arguments: Mapping[str, object]) -> dict[str, str]:
    """Setting -> who decided it: argument, environment, mqkit.toml or default."""
    path = Path(FILE)
    in_file = tomllib.loads(path.read_text()) if path.is_file() else {}
    upper = {name.upper() for name in os.environ}
    found = {}
    for name in type(settings).model_fields:
        if arguments.get(name) is not None:
            found[name] = "argument"
        elif any(v == f"MQKIT_{name.upper()}" or v.startswith(f"MQKIT_{name.upper()}__") for v in upper):
            found[name] = "environment"
        else:
            found[name] = FILE if name in in_file else "default"
    return found
