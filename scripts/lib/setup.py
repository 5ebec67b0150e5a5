"""What the scripts need before they can begin: the server's binary, a Python with redis-py, room to work in."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

# One release of redis-py, so that a run today and one next year test the same thing.
REDIS_PY = "redis==8.1.0"


def target_directory() -> Path:
    """Where cargo builds."""
    command = ["cargo", "metadata", "--format-version=1", "--no-deps", "--manifest-path", str(ROOT / "Cargo.toml")]
    return Path(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["target_directory"])


def server_binary() -> Path:
    """The release build of the server; `GRAMME_BIN` names another one to use as it is."""
    given = os.environ.get("GRAMME_BIN")
    if given:
        return Path(given).resolve()
    build = ["cargo", "build", "--release", "--quiet", "--package", "gramme-node", "--bin", "gramme"]
    subprocess.run(build, cwd=ROOT, check=True)
    return target_directory() / "release" / "gramme"


def use_redis_py() -> None:
    """Goes on in the Python of a virtual environment that has `REDIS_PY`, made at the first call."""
    place = target_directory() / "scripts-venv"
    python = place / "bin" / "python"
    if os.environ.get("GRAMME_SCRIPTS_VENV") == str(place):
        return
    done = place / REDIS_PY
    if not done.exists():
        print(f"installing {REDIS_PY} into {place}", file=sys.stderr)
        shutil.rmtree(place, ignore_errors=True)
        try:
            venv.create(place, with_pip=True)
        except subprocess.CalledProcessError:
            sys.exit("can't make a virtual environment: install python3-venv")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REDIS_PY]
        if subprocess.run(pip).returncode != 0:
            sys.exit(f"pip could not install {REDIS_PY}")
        done.touch()
    os.environ["GRAMME_SCRIPTS_VENV"] = str(place)
    os.execv(python, [str(python), *sys.argv])
