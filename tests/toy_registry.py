"""A registry of MLflow in a database of its own, and a store of files that can be slow, or lie."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from visionlake.jobs._tracking._database import create_database, sqlite_uri
from visionlake.udfs._mlflow import mlflow_settings
from visionlake.udfs.detector_types import DetectOptions


class Registry:
    """`uri` is its address, `client` MLflow's own."""

    def __init__(self, folder: Path) -> None:
        with mlflow_settings():
            from mlflow import MlflowClient

            create_database(folder / "mlflow.db", (folder / "artifacts").as_uri())
            self.uri = sqlite_uri(folder / "mlflow.db")
            self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def add(self, name: str, source: Path | str, *, alias: str | None = None) -> DetectOptions:
        """A new version with the files of a folder, or of an address; the options for it."""
        from mlflow.exceptions import MlflowException

        with mlflow_settings():
            try:
                self.client.get_registered_model(name)
            except MlflowException:
                self.client.create_registered_model(name)
            made = self.client.create_model_version(name, source.as_uri() if isinstance(source, Path) else source)
            if alias:
                self.client.set_registered_model_alias(name, alias, str(made.version))
        return self.options(f"{name}@{alias}" if alias else f"{name}/{made.version}")

    def options(self, model: str, **values: Any) -> DetectOptions:
        return DetectOptions(
            backend="mlflow", model=f"models:/{model}", registry_uri=self.uri, **{"device": "cpu", **values}
        )


class Store:
    """Files as a server of MLflow gives them. `said` are sizes that it claims, `asked` what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said, self.asked = folder, dict[str, int](), list[str]()
        self.names: list[str] | None = None  # in its list, instead of those of the folder
        self.is_half, self.is_at_half, self.wait_s = False, threading.Event(), 0.0
        self.url = ""

    def listed(self) -> list[Mapping[str, Any]]:
        names = sorted(path.name for path in self.folder.iterdir()) if self.names is None else self.names
        sizes = {path.name: path.stat().st_size for path in self.folder.iterdir()} | self.said
        return [{"path": name, "is_dir": False, "file_size": sizes.get(name, 1)} for name in names]


@contextmanager
def serving(folder: Path) -> Iterator[Store]:
    store, is_over = Store(folder), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if "path" in parse_qs(parts.query, keep_blank_values=True):
                only = parse_qs(parts.query, keep_blank_values=True)["path"][0].strip("/")
                content = json.dumps({"files": [] if only != "model" else store.listed()}).encode()
            else:
                name = parts.path.rpartition("/")[2]
                store.asked.append(name)
                if not (folder / name).is_file():
                    return self.send_error(404)
                content = (folder / name).read_bytes()
                is_over.wait(store.wait_s)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if store.is_half and "path=" not in parts.query:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                store.is_at_half.set()
                is_over.wait(60)
            else:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}/api/2.0/mlflow-artifacts/artifacts/model"
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    try:
        yield store
    finally:
        is_over.set()
        server.shutdown()
        server.server_close()
