"""Where the service of a home folder is said to be."""

import json
from pathlib import Path

from catalog.settings import Settings
from service.address import RECORD, recorded, service_url


def test_running_service_wins_over_the_setting_and_a_dead_one_does_not(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, port=9000)
    assert service_url(settings) == "http://127.0.0.1:9000"
    with recorded(settings, "http://127.0.0.1:1234"):
        assert service_url(settings) == "http://127.0.0.1:1234"
        mine = json.loads((tmp_path / RECORD).read_text())
    assert service_url(settings) == "http://127.0.0.1:9000"
    host, namespace, _pid, _started = mine["process"].rsplit("/", 3)
    dead = {"url": "http://127.0.0.1:1234", "process": f"{host}/{namespace}/999999999/1.00"}
    for left in (json.dumps(dead), "", "half a li"):
        (tmp_path / RECORD).write_text(left)
        assert service_url(settings) == "http://127.0.0.1:9000"


def test_second_service_of_a_home_keeps_its_record_when_the_first_ends(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with recorded(settings, "http://127.0.0.1:1"):
        second = recorded(settings, "http://127.0.0.1:2")
        second.__enter__()
    assert service_url(settings) == "http://127.0.0.1:2"
    second.__exit__(None, None, None)
    assert not (tmp_path / RECORD).exists()
