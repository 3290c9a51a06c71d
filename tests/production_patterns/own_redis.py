"""A Redis of the test's own, which it may kill, stop in the middle, and start again."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from production_patterns.extra_servers import need

LIMIT = 60  # seconds that a start may take on a busy machine


class OwnRedis:
    """It listens on a socket in a folder of its own and keeps nothing on disk."""

    def __init__(self, folder: Path) -> None:
        (self._program,) = need("redis", "redis-server")
        self._folder = folder
        self.url = f"unix://{folder}/redis.sock"
        self.start()

    def start(self) -> None:
        command = [self._program, "--port", "0", "--save", "", "--dir", str(self._folder)]
        command += ["--unixsocket", f"{self._folder}/redis.sock"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + LIMIT
        while True:
            try:
                self.command("PING")
            except redis.ConnectionError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    log_text = (self._folder / "log").read_text()
                    raise RuntimeError(f"Redis does not answer: {log_text}") from error
                time.sleep(0.01)
            else:
                return

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def hang(self) -> None:
        """Accept connections, as the kernel does, and answer nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> object:
        with redis.Redis.from_url(self.url) as client:
            return client.execute_command(*words)


@contextmanager
def own_redis() -> Iterator[OwnRedis]:
    with tempfile.TemporaryDirectory(prefix="redis_") as folder:
        server = OwnRedis(Path(folder))
        try:
            yield server
        finally:
            server.kill()
