"""``python -m bench.install_carbon``: graphite carbon, on a Python that its set-up does not know.

Its ``setup.py`` calls ``ConfigParser.readfp``, which Python 3.12 took out.  The build is lent a
``configparser`` that has it; what gets installed is carbon as it was published.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 300
LENT = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("configparser", {os.path.dirname(os.__file__)!r} + "/configparser.py")
module = importlib.util.module_from_spec(spec)
sys.modules["configparser"] = module
spec.loader.exec_module(module)
module.RawConfigParser.readfp = lambda self, file, name=None: self.read_file(file, name)
"""  # noqa: E501


def main() -> None:
    """Install it beside the interpreter that runs this."""
    pip = [sys.executable, "-m", "pip", "install"]
    subprocess.run([*pip, "setuptools", "wheel"], check=True, timeout=SECONDS)
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "configparser.py").write_text(LENT)
        # Else it goes to /opt/graphite.
        environment = {**os.environ, "PYTHONPATH": directory, "GRAPHITE_NO_PREFIX": "True"}
        subprocess.run(
            [*pip, "--no-build-isolation", "carbon"], check=True, timeout=SECONDS, env=environment
        )


if __name__ == "__main__":
    main()
