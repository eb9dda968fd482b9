"""Inputs in a bucket, against an emulator of Google Cloud Storage that is started here and stopped again."""

import json
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from ocr_model.errors import BadInput
from pipelines.archives import close_archives
from pipelines.corpus import SourceFile, find_sources, read_bytes, read_source

pytestmark = pytest.mark.slow

emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
pytest.importorskip("google.cloud.storage", reason="apache-beam[gcp] is not installed")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization", reason="cryptography is missing")

BUCKET = "pagemill-scans"
FILES = ["in/a/1.jpg", "in/a/1.tif", "in/b/page 2 é.png", "in/.hidden.png", "in/notes.txt", "in/out/overlay/1.jpg"]
INPUTS = ["", "in", "in/**/*.jpg", "in/*/1*", "in/a/1.jpg", "list.csv", "list.jsonl", "in/box.zip", "in/a/"]


class _Tokens(BaseHTTPRequestHandler):
    """Gives everybody a token, so that the client does not look for credentials elsewhere for 20 seconds."""

    def do_POST(self) -> None:
        body = json.dumps({"access_token": "token", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def service_account(token_uri: str) -> str:
    """The JSON of an account that does not exist, with a key of its own."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "pagemill-test",
            "private_key_id": "1",
            "private_key": key.decode(),
            "client_email": "test@pagemill-test.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": token_uri,
        }
    )


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`gs://…` of an empty bucket."""
    from apache_beam.internal.gcp import auth

    tokens = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
    threading.Thread(target=tokens.serve_forever, daemon=True).start()
    account = tmp_path_factory.mktemp("account") / "account.json"
    account.write_text(service_account(f"http://127.0.0.1:{tokens.server_port}/token"))
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    port = server._api._httpd.server_port
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        patch.setenv("GOOGLE_CLOUD_PROJECT", "pagemill-test")
        patch.setattr(auth._Credentials, "_credentials_init", False)
        patch.setattr(auth._Credentials, "_credentials", None)
        yield f"gs://{BUCKET}"
    close_archives()
    server.stop()
    tokens.shutdown()
    tokens.server_close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, bucket: str) -> Path:
    """The same files in a folder here and in the bucket."""
    root = tmp_path_factory.mktemp("corpus")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    with zipfile.ZipFile(root / "in/box.zip", "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("1901/7.png", b"seven" * 1000)
        box.writestr("../up.png", b"up")
    (root / "list.csv").write_text("path,page,language\nin/a/1.jpg,,en\nin/box.zip!1901/7.png,1,de\ngone.png,,\n")
    (root / "list.jsonl").write_text('{"path": "in/b/page 2 é.png", "document": "b"}\n')
    for path in root.rglob("*"):
        if path.is_file():
            target = f"{bucket}/{path.relative_to(root)}"
            with FileSystems.create(target, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
                stream.write(path.read_bytes())
    return root


def described(sources: list[SourceFile], root: str) -> list[tuple[object, ...]]:
    """All that is to be equal, whichever place the files are in."""
    return [
        (os.path.relpath(s.path, root), s.stem, s.size, s.member, s.first_page, s.document, s.metadata, content(s))
        for s in sources
    ]


def content(source: SourceFile) -> bytes | None:
    try:
        return read_source(source, 10_000)
    except OSError:
        return None


@pytest.mark.parametrize("name", INPUTS)
def test_bucket_gives_the_same_sources_and_bytes_as_the_folder(corpus: Path, bucket: str, name: str) -> None:
    here = find_sources([f"{corpus}/{name}"], f"{corpus}/in/out")
    there = find_sources([f"{bucket}/{name}"], f"{bucket}/in/out")
    assert len(here) > 0
    assert described(there, bucket) == described(here, str(corpus))


def test_object_that_a_manifest_names_and_that_is_missing_is_an_error_of_reading(corpus: Path, bucket: str) -> None:
    (gone,) = [s for s in find_sources([f"{bucket}/list.csv"], "out") if s.stem == "gone"]
    with pytest.raises(OSError, match="404"):
        read_source(gone, 10)
    with pytest.raises(OSError, match="https"):
        read_bytes("https://example.invalid/scan.png", 10)


@pytest.mark.parametrize(
    "name", ["gs://no-such-bucket/in", "gs://no-such-bucket/in/*.jpg", "gs://no-such-bucket/1.jpg"]
)
def test_bucket_that_does_not_exist_is_named(bucket: str, name: str) -> None:
    with pytest.raises(BadInput, match=r"no such bucket: gs://no-such-bucket \(check the path\)"):
        find_sources([name], "out")


def test_bucket_alone_is_a_folder(corpus: Path, bucket: str) -> None:
    assert find_sources([bucket], "out") == find_sources([f"{bucket}/"], "out")


def test_missing_object_is_named(corpus: Path, bucket: str) -> None:
    with pytest.raises(BadInput, match=f"no such file or folder: {bucket}/nowhere.jpg"):
        find_sources([f"{bucket}/nowhere.jpg"], "out")


def test_output_folder_in_the_bucket_is_no_input(corpus: Path, bucket: str) -> None:
    with pytest.raises(BadInput, match="lies in the output folder"):
        find_sources([f"{bucket}/in/out/overlay"], f"{bucket}/in/out/")
