"""A Spark standalone cluster on this machine: a master and workers, each a process of its own, until Ctrl-C.

    python scripts/cluster.py [--workers 2] [--cores 1] [--memory 2g]

It is made of pyspark's own classes: what pip installs has no `start-master.sh`.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pyspark

from visionlake.jobs._java import find_java
from visionlake.jobs._session import local_settings

SPARK = Path(pyspark.__file__).parent
START_LIMIT_S = 90.0
END_LIMIT_S = 20.0
_HOST = "127.0.0.1"
_CLASSES = "org.apache.spark.deploy"


class Cluster:
    """A running cluster, as a context: `url` is what `spark-submit --master` takes, `workers` are the processes.

    Logs and working folders of all lie in `folder`. `environ` is what executors inherit, and what a submission wants.
    Raises RuntimeError where a process does not start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 2,
        cores: int = 1,
        memory: str = "2g",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self.url = ""
        self._count, self._size = workers, ("--cores", str(cores), "--memory", memory)
        self.environ = {"SPARK_DAEMON_MEMORY": "256m", **(os.environ if environ is None else environ)}
        self.environ |= {"SPARK_HOME": str(SPARK)}
        if (home := find_java().home) is not None:
            self.environ |= {"JAVA_HOME": str(home)}
        self._all: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Cluster:
        try:
            master = self._start("master", "master.Master", "--host", _HOST, "--port", "0", "--webui-port", "0")
            self.url = self._wait("master", master, r"Starting Spark master at (spark://\S+)")
            for number in range(self._count):
                ports = ("--host", _HOST, "--port", "0", "--webui-port", "0")
                work = ("--work-dir", str(self.work(number)))
                self.workers.append(
                    self._start(f"worker{number}", "worker.Worker", *ports, *self._size, *work, self.url)
                )
            for number, worker in enumerate(self.workers):
                self._wait(f"worker{number}", worker, r"(Successfully registered with master)")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settings(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Spark's settings for an application here: those of a local session, Delta's jars among them."""
        own = {"spark.master": self.url, "spark.driver.host": _HOST, "spark.driver.bindAddress": _HOST, **(more or {})}
        found = local_settings(own)
        del found["spark.python.daemon.module"]  # which zips reach too late for
        return found

    def work(self, number: int) -> Path:
        """The folder in which a worker keeps its executors' files."""
        return self.folder / f"work{number}"

    def close(self) -> None:
        """End all processes, the workers first: each ends its executors."""
        for process in reversed(self._all):
            process.terminate()
        deadline = time.monotonic() + END_LIMIT_S
        for process in reversed(self._all):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, name: str, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [str(SPARK / "bin" / "spark-class"), f"{_CLASSES}.{kind}", *arguments]
        with self._log(name).open("wb") as log:
            # Away from the terminal, whose Ctrl-C is for the process that ends them in order.
            process = subprocess.Popen(
                command, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._all.append(process)
        return process

    def _wait(self, name: str, process: subprocess.Popen[bytes], pattern: str) -> str:
        """What a line of the log says, as soon as it is there."""
        said, deadline = "", time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            said = self._log(name).read_text(errors="replace")
            if found := re.search(pattern, said):
                return found[1]
            if process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"the {name} did not start; its log is {self._log(name)}:\n{said[-2000:]}")

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def main() -> None:
    """Start a cluster, say how to use it, and end it with Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cores", type=int, default=1, help="of each worker")
    parser.add_argument("--memory", default="2g", help="of each worker")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="visionlake-cluster-") as folder:
        size = {"workers": options.workers, "cores": options.cores, "memory": options.memory}
        try:
            print(f"starting a master and {options.workers} workers; logs are in {folder}", flush=True)
            with Cluster(Path(folder), **size) as cluster:
                print(f"{cluster.url} is up, with {options.workers} workers. Ctrl-C ends it. For example:\n")
                settings = Path(folder, "spark-defaults.conf")
                settings.write_text("".join(f"{name} {value}\n" for name, value in cluster.settings().items()))
                print(f"  make zip; export PYSPARK_PYTHON={sys.executable} SPARK_HOME={SPARK}")
                print(f"  $SPARK_HOME/bin/spark-submit --properties-file {settings} --py-files dist/visionlake.zip \\")
                print("    jobs/ingest_media.py --config pipeline.toml", flush=True)
                signal.pause()
        except KeyboardInterrupt:
            print("ended")


if __name__ == "__main__":
    main()
