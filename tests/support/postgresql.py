"""A PostgreSQL server of the tests' own, which can go away and come back."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Server:
    """A server in a folder of its own; it listens on a socket there."""

    binaries: Path
    folder: Path
    user: str | None  # PostgreSQL refuses to run as root

    @property
    def url(self) -> str:
        return f"postgresql://nas@/postgres?host={self.folder / 'socket'}"

    def run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, check=True, user=self.user, cwd=self.folder, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        options = f"-c listen_addresses='' -c fsync=off -c unix_socket_directories={self.folder / 'socket'}"
        self.run("pg_ctl", "-w", "-t", "300", "-o", options, "-l", str(self.folder / "server.log"), "start")

    def stop(self, mode: str = "immediate") -> None:
        self.run("pg_ctl", "-w", "-t", "300", "-m", mode, "stop")


def _binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Server]:
    """A server that runs. A test that stops it starts it again."""
    pytest.importorskip("psycopg", reason="the extra `distributed` is not installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="nas-postgresql-"))  # pytest's own is for its user alone
    user: str | None = None
    (folder / "socket").mkdir()
    if os.geteuid() == 0:
        users = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in users else "nobody"
        shutil.chown(folder, user)
        shutil.chown(folder / "socket", user)
    server = Server(binaries, folder, user)
    server.run("initdb", "-A", "trust", "-U", "nas", "--no-sync")
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
