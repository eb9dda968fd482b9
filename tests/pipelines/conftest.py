from collections.abc import Iterator

import pytest

from pipelines.decoder import Decoder


@pytest.fixture(scope="session")
def shared_decoder() -> Iterator[Decoder]:
    """One child for all tests in which a decoder is only a means."""
    with Decoder(timeout_s=20.0) as decoder:
        yield decoder
