"""MariaDB and slurmdbd below STATE, so that sacct answers and an unknown account is refused."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from daemons import daemon, until
from processes import marked, marked_environment
from state import HEAD, LOGS, STATE, Failed, daemon_path, run

DAEMONS = ("mariadbd", "slurmdbd")
PACKAGES = {"mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server", "slurmdbd": "slurmdbd"}

_PLUGIN = "slurm-wlm/accounting_storage_mysql.so"
_SOCKET = STATE / "mariadb.socket"


def check() -> None:
    missing = {package for program, package in PACKAGES.items() if not daemon_path(program)}
    if not any(Path("/usr/lib").glob(f"*/{_PLUGIN}")):
        missing.add("slurm-wlm-mysql-plugin")
    if missing:
        raise Failed(f"not installed: apt-get install {' '.join(sorted(missing))}")


def start() -> None:
    _start_database()
    if not marked("slurmdbd"):
        settings = STATE / "slurmdbd.conf"
        settings.touch(mode=0o600)
        settings.write_text(_settings())
        # the client library knows no other way to a socket of one's own
        daemon("slurmdbd", env={"MYSQL_UNIX_PORT": str(_SOCKET)})
        until(lambda: "devcluster" in _clusters(), 20, lambda: "slurmdbd does not answer", LOGS / "slurmdbd.log")


def _clusters() -> str:
    """Adds the cluster if it is not there. Empty while slurmdbd is not ready."""
    listed = run("sacctmgr", "--noheader", "--parsable2", "list", "cluster", check=False)
    if listed or not run("sacctmgr", "--immediate", "add", "cluster", "devcluster", check=False):
        return listed
    run("sacctmgr", "--immediate", "add", "account", "research", "Cluster=devcluster")
    run("sacctmgr", "--immediate", "add", "user", "root", "Account=research")
    run("sacctmgr", "--immediate", "modify", "user", "root", "set", "DefaultAccount=research")
    return run("sacctmgr", "--noheader", "--parsable2", "list", "cluster")


def _start_database() -> None:
    if marked("mariadbd"):
        return
    data, log = STATE / "mariadb", LOGS / "mariadbd.log"
    if not data.exists():
        run(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={data}",
            "--user=root",
            "--auth-root-authentication-method=socket",
            timeout=60,
        )
    with log.open("ab") as stream:
        subprocess.Popen(
            [
                daemon_path("mariadbd"),
                "--no-defaults",
                f"--datadir={data}",
                f"--socket={_SOCKET}",
                f"--pid-file={STATE}/mariadbd.pid",
                "--user=root",
                "--skip-networking",
                # nothing here has to outlive the machine
                "--innodb-flush-log-at-trx-commit=0",
                "--innodb-lock-wait-timeout=900",
            ],
            env=marked_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    until(_answers, 30, lambda: "MariaDB does not answer", log)


def _answers() -> bool:
    return "1" in run("mariadb", "--no-defaults", f"--socket={_SOCKET}", "--execute=select 1", check=False)


def _settings() -> str:
    options = {
        "DbdHost": socket.gethostname().split(".")[0],
        "DbdAddr": HEAD,
        "DbdPort": "26819",
        "SlurmUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={STATE}/munge.socket",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": "root",
        "StorageLoc": "slurm",
        "LogFile": f"{LOGS}/slurmdbd.log",
        "PidFile": f"{STATE}/slurmdbd.pid",
    }
    return "".join(f"{key}={value}\n" for key, value in options.items())
