"""An S3-compatible server for tests, in a process of its own: moto's, with S3's atomic conditional puts.

moto looks whether an object is there and then writes it, in several threads: of two puts with
If-None-Match at once both may succeed, where S3 lets one. So here all that writes goes through one after
the other.
"""

import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# No credentials are looked for beyond these, least of all at the address where cloud machines find theirs.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


class S3Server:
    """The server from outside. `environment` is what a program must be given to find it.

    requests: the first line of each request with the answer's code, as they come.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        address = self._process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), "the server did not start"
        self.environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": address}
        self.requests: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.requests.append(line.strip())

    def client(self) -> Any:
        """boto3's client, to look at the server without `motive`."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def objects(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """The sizes of the objects with this beginning, by key."""
        pages = (
            self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        )
        return {o["Key"]: o["Size"] for page in pages for o in page.get("Contents", [])}

    def download(self, bucket: str, prefix: str, folder: Path) -> None:
        """Copy what lies below `prefix` to a folder."""
        client = self.client()
        for key in self.objects(bucket, f"{prefix}/"):
            file = folder / key.removeprefix(f"{prefix}/")
            file.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, key, str(file))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def serve() -> None:
    """Print the address once it can be asked, then serve until the standard input ends."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    moto, writing = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_write_at_a_time(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return moto(environ, start_response)
        with writing:
            return moto(environ, start_response)

    class Handler(MotoRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as S3 keeps them

        def log_request(self, *arguments: object) -> None:
            # In one piece: other threads write too.
            sys.stdout.write(f"{self.requestline} {arguments[0]}\n")
            sys.stdout.flush()

    server = make_server(
        "127.0.0.1", 0, one_write_at_a_time, threaded=True, request_handler=Handler
    )
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # also when the tests were killed


if __name__ == "__main__":
    serve()
