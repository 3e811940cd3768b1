"""A PostgreSQL server of the tests' own, from Debian's package: started once, in a folder of its own, and stopped at the end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PASSWORD = "s3cret/word"
_SETTINGS = {  # only as safe as a test needs: no power cut is survived
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "16MB",
    "listen_addresses": "127.0.0.1",
}


@dataclass(frozen=True)
class PostgreSQL:
    """A running server. folder: of its socket, through which everyone may come; port: where a password is asked for."""

    programs: Path
    folder: Path
    port: int

    def url(self, schema: str = "") -> str:
        """For SQLAlchemy; with an empty schema of its own, where one is named."""
        if not schema:
            return f"postgresql://tester@/postgres?host={self.folder}&port={self.port}"
        self.sql(f"CREATE SCHEMA {schema}")
        return f"{self.url()}&options=-csearch_path%3D{schema}"

    def sql(self, statement: str) -> str:
        """What psql answers."""
        server = ["-h", str(self.folder), "-p", str(self.port), "-U", "tester", "-d", "postgres"]
        command = [str(self.programs / "psql"), *server, "-Atqc", statement]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    def end_connections(self) -> None:
        """End all, as a server that stops does."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'tester'"
        )


def start() -> Iterator[PostgreSQL]:
    """The server while the generator lives. Skips, with the reason, where there is no PostgreSQL."""
    programs = _programs()
    user = _other_user()
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path may not be long
    try:
        if user:
            shutil.chown(folder, user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        data = folder / "data"
        run = ["runuser", "-u", user, "--"] if user else []
        options = ["-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale"]
        _call(*run, str(programs / "initdb"), "-D", str(data), *options)
        rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (data / "pg_hba.conf").write_text(rules)
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        options = ["-p", str(port), "-k", str(folder), *settings]
        log = folder / "log"
        control = [*run, str(programs / "pg_ctl"), "-D", str(data), "-w"]
        _call(*control, "-l", str(log), "-o", " ".join(options), "start")
        try:
            server = PostgreSQL(programs, folder, port)
            server.sql(f"ALTER USER tester PASSWORD '{PASSWORD}'")
            yield server
        finally:
            _call(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).parent


def _other_user() -> str:
    """initdb refuses to work for root."""
    if os.getuid() != 0:
        return ""
    if shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no runuser to become another user.")
    import pwd

    names = {one.pw_name for one in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _call(*command: str) -> None:
    with tempfile.TemporaryFile() as out:  # not a pipe: the server would keep it open
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False, timeout=120, cwd="/")
        if done.returncode:
            out.seek(0)
            raise RuntimeError(f"{command[-1]}: {out.read().decode(errors='replace')}")
