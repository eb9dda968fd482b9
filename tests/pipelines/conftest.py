"""What several tests of the pipelines need."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipelines.decoder import Decoder

BUCKET = "pagemill-scans"


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
    from cryptography.hazmat.primitives import serialization
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
    """`gs://…` of an empty bucket, in an emulator of Google Cloud Storage that is started here and stopped again."""
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
    pytest.importorskip("google.cloud.storage", reason="apache-beam[gcp] is not installed")
    pytest.importorskip("cryptography", reason="cryptography is missing")
    from apache_beam.internal.gcp import auth

    from pipelines.archives import close_archives

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


@pytest.fixture(scope="session")
def shared_decoder() -> Iterator[Decoder]:
    """One child for all tests in which a decoder is only a means."""
    with Decoder(timeout_s=20.0) as decoder:
        yield decoder
