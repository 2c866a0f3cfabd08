"""Settings come from defaults, TOML and environment, and refuse what they do not know."""

from pathlib import Path

import pytest

from catalog.errors import ConfigError
from catalog.settings import load_settings


def test_defaults_live_in_the_home_folder(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    assert settings.database == f"sqlite:///{tmp_path}/winnow.db"
    assert settings.broker == f"sqlq:///{tmp_path}/broker.db"
    assert settings.store == f"file://{tmp_path}/store"


def test_environment_wins_over_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "winnow.toml").write_text("port = 7000\nnum_workers = 5\n")
    monkeypatch.setenv("WINNOW_HOME", str(tmp_path))
    monkeypatch.setenv("WINNOW_PORT", "7001")
    settings = load_settings()
    assert (settings.port, settings.num_workers) == (7001, 5)


def test_unknown_toml_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "winnow.toml").write_text("num_worker = 5\n")
    with pytest.raises(ConfigError, match=r"unknown setting 'num_worker'; did you mean 'num_workers'\?"):
        load_settings(home=tmp_path)


def test_unknown_environment_variable_is_refused_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINNOW_PROT", "1")
    with pytest.raises(ConfigError, match=r"WINNOW_PROT is no setting; did you mean 'port'\?"):
        load_settings(home=tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("port = 70000", "port=70000"),
        ("num_workers = 0", "num_workers=0"),
        ("lease_seconds = 10.0\nheartbeat_seconds = 9.0", "at most half of lease_seconds"),
        ("port = = 1", "does not parse"),
    ],
)
def test_bad_value_names_itself(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "winnow.toml").write_text(line)
    with pytest.raises(ConfigError, match=message):
        load_settings(home=tmp_path)


def test_heartbeat_of_exactly_half_the_lease_is_accepted(tmp_path: Path) -> None:
    assert load_settings(home=tmp_path, lease_seconds=10.0, heartbeat_seconds=5.0).heartbeat_seconds == 5.0
