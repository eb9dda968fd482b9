"""The job that `transcribe` sends to Dataflow, received by a server of our own; the bucket is an emulator's."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.portability.api import beam_runner_api_pb2

from ocr_model.errors import PagemillError
from pipelines.plan import read_references
from pipelines.report import reconcile
from pipelines.transcribe import TranscribeOptions, run
from tests import scans
from tests.pipelines.readers import SizeReader

pytestmark = pytest.mark.slow

IMAGE = "europe-docker.pkg.dev/pagemill-test/images/pagemill:0.1.0"


class Jobs(BaseHTTPRequestHandler):
    """Takes every job and says at once that it is done."""

    taken: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.partition("?")[0].endswith("/jobs"):
            self.taken.append(body)
        self._answer({**body, "id": "job-1", "currentState": "JOB_STATE_PENDING"})

    def do_GET(self) -> None:
        messages = "/messages" in self.path or "/metrics" in self.path
        self._answer({} if messages else {"id": "job-1", "currentState": "JOB_STATE_DONE", "type": "JOB_TYPE_BATCH"})

    def _answer(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def dataflow() -> Iterator[str]:
    Jobs.taken.clear()
    server = ThreadingHTTPServer(("localhost", 0), Jobs)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def flags(endpoint: str, bucket: str) -> list[str]:
    return [
        "--runner=DataflowRunner",
        "--project=pagemill-test",
        "--region=europe-west4",
        "--no_auth",
        f"--dataflow_endpoint={endpoint}",
        f"--temp_location={bucket}/temp",
        f"--staging_location={bucket}/staging",
        f"--sdk_container_image={IMAGE}",
        "--sdk_location=container",
        "--machine_type=n2-standard-4",
        "--max_num_workers=50",
        "--job_name=pagemill-test",
    ]


def test_job_that_is_sent_to_dataflow(bucket: str, dataflow: str, tmp_path: Path) -> None:
    for n in range(3):
        with FileSystems.create(f"{bucket}/scans/{n}.png", compression_type=CompressionTypes.UNCOMPRESSED) as stream:
            stream.write(scans.encoded(scans.picture(20 + n, 20), "PNG"))
    options = TranscribeOptions((f"{bucket}/scans",), f"{bucket}/text", formats=("txt", "pdf"), load=SizeReader)
    with pytest.raises(PagemillError, match="1 units open"):  # the books are looked into after the job, whoever ran it
        run(options, flags(dataflow, bucket))
    assert [reference.files for reference in read_references(f"{bucket}/text")] == [3]
    assert reconcile(f"{bucket}/text").open_units == 1

    (job,) = Jobs.taken
    (pool,) = job["environment"]["workerPools"]
    assert (pool["machineType"], pool["autoscalingSettings"]["maxNumWorkers"]) == ("n2-standard-4", 50)
    assert IMAGE in json.dumps(pool["sdkHarnessContainerImages"])

    (staged,) = FileSystems.match([f"{bucket}/staging/**pipeline.pb"])[0].metadata_list
    with FileSystems.open(staged.path, compression_type=CompressionTypes.UNCOMPRESSED) as stream:
        graph = beam_runner_api_pb2.Pipeline.FromString(stream.read())
    names = {transform.unique_name for transform in graph.components.transforms.values()}
    assert {"Open units/List open units", "Open units/Spread over workers", "Read units", "Publish units"} <= names
    assert str(bucket) in repr(graph) and "scans/0.png" not in repr(graph)  # the files are no part of it
