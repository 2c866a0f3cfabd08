"""Settings: defaults, then ``winnow.toml`` in the home folder, then ``WINNOW_*`` environment variables.

Moving from a laptop to many machines changes nothing but these values.
"""

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from catalog.errors import ConfigError, nearest

ENV_PREFIX = "WINNOW_"
CONFIG_NAME = "winnow.toml"
SECRETS = ("pii_key",)
"""Settings whose values no message may hold."""
NEEDS = ("cpu", "embed", "train")
"""What a unit may need of a worker: any processor, an encoder's memory and speed, or a machine to train on."""


def default_home() -> Path:
    """``$WINNOW_HOME``, else ``.winnow`` in the user's home folder."""
    return Path(os.environ.get("WINNOW_HOME") or Path.home() / ".winnow").expanduser().absolute()


class Settings(BaseSettings):
    """Everything that differs between a laptop and a cluster. Every field can be set by environment or TOML."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    home: Path = Field(default_factory=default_home, description="folder of the embedded database, store and logs")
    database_url: str = Field("", description="SQLAlchemy URL; empty means SQLite in the home folder")
    broker_url: str = Field("", description="Celery broker URL; empty means the embedded SQLite broker")
    store_url: str = Field("", description="fsspec URL of the shard store; empty means a folder in the home folder")
    num_workers: int = Field(2, ge=1, le=256, description="worker processes that `winnow up` starts on this machine")
    host: str = Field("127.0.0.1", description="address the web service binds; anything but loopback needs a proxy")
    port: int = Field(8765, ge=0, le=65535, description="port of the web service")
    behind_proxy: bool = Field(default=False, description="allow another host: a TLS proxy stands in front")
    allowed_hosts: str = Field("127.0.0.1,localhost,[::1]", description="Host headers answered, comma separated")
    worker_needs: str = Field(
        ",".join(NEEDS), description="which units a worker takes up, comma separated of cpu, embed, train"
    )
    lease_seconds: float = Field(60.0, gt=0, description="how long a unit stays claimed without a heartbeat")
    heartbeat_seconds: float = Field(15.0, gt=0, description="how often a running unit renews its lease")
    sweep_seconds: float = Field(5.0, gt=0, description="how often expired leases and unsent messages are looked for")
    watch_settle_seconds: float = Field(
        10.0, ge=0, description="a file of a watched folder is taken in once it has not changed for so long"
    )
    max_attempts: int = Field(3, ge=1, description="claims of a unit before it is poisoned")
    broker_poll_seconds: float = Field(0.02, gt=0, description="how often an idle worker polls the embedded broker")
    label_lease_seconds: float = Field(600.0, gt=0, description="how long an annotator holds a task without a sign")
    shard_rows: int = Field(10_000, ge=1, description="records a text shard holds at most")
    shard_bytes: int = Field(64 * 2**20, ge=1024, description="bytes of text a shard holds at most")
    max_line_bytes: int = Field(16 * 2**20, ge=1024, description="a longer line is quarantined, not read")
    dedup_rows: int = Field(
        250_000,
        ge=1,
        description="short records a unit of deduplication holds at a time, fewer long ones: memory against units",
    )
    webhook_private: bool = Field(
        default=False, description="webhooks may tell private networks and this machine, and without TLS"
    )
    pii_key: SecretStr | None = Field(
        None, min_length=16, exclude=True, description="secret of the pseudonyms that the pii step's action hash writes"
    )
    otlp_endpoint: str = Field(
        "", description="base URL of an OpenTelemetry collector (OTLP over HTTP); empty means no traces"
    )
    metrics_from_loopback: bool = Field(
        default=False, description="let programs on this machine read /metrics without a token"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level of Winnow's own log lines; libraries log from warnings on"
    )
    token_days: int = Field(90, ge=1, description="days until a new token expires")

    @model_validator(mode="after")
    def _heartbeat_fits_lease(self) -> "Settings":
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"heartbeat_seconds={self.heartbeat_seconds} must be at most half of lease_seconds={self.lease_seconds}"
            )
        return self

    @model_validator(mode="after")
    def _needs_are_known(self) -> "Settings":
        unknown = [need for need in self.serves if need not in NEEDS]
        if unknown or not self.serves:
            raise ValueError(f"worker_needs={self.worker_needs!r} must name one or more of {', '.join(NEEDS)}")
        return self

    @property
    def serves(self) -> tuple[str, ...]:
        """``worker_needs``, one by one."""
        return tuple(need.strip() for need in self.worker_needs.split(",") if need.strip())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Explicit values win over the environment, which wins over the TOML file of the home folder."""
        given = init_settings()
        home = Path(given.get("home") or default_home())
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=home / CONFIG_NAME)

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.home / 'winnow.db'}"

    @property
    def broker(self) -> str:
        """The broker URL in force."""
        return self.broker_url or f"sqlq:///{self.home / 'broker.db'}"

    @property
    def store(self) -> str:
        """The store URL in force."""
        return self.store_url or f"file://{self.home / 'store'}"


def load_settings(**given: Any) -> Settings:
    """Read the settings in force, with every problem in one clear error.

    Raises
    ------
    ConfigError : an unknown key (with the nearest known one), a value out of range, or a TOML file that does not parse.
    """
    known = set(Settings.model_fields)
    for variable in os.environ:
        if variable.startswith(ENV_PREFIX) and variable.removeprefix(ENV_PREFIX).lower() not in known:
            name = variable.removeprefix(ENV_PREFIX).lower()
            raise ConfigError(f"environment variable {variable} is no setting; {nearest(name, known)}")
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{CONFIG_NAME} in the home folder does not parse: {error}") from error
    except ValidationError as error:
        problems = []
        for one in error.errors():
            name = ".".join(str(part) for part in one["loc"])
            if one["type"] == "extra_forbidden":
                problems.append(f"unknown setting {name!r}; {nearest(name, known)}")
            else:
                # A secret is named, never shown.
                shown = name if name in SECRETS else f"{name}={one['input']!r}"
                problems.append(f"{shown}: {one['msg']}" if name else one["msg"])
        raise ConfigError("; ".join(problems)) from error
