"""The model, loaded into this process: TensorFlow is imported here, quietly, and what that used is given back."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipelines.read_pages import PageReader


def load_reader(bundle: str | None) -> PageReader:
    """The `Reader` of a bundle, of the one in the package if None. Imports TensorFlow.

    Raises:
        BadModel: it is no bundle.
    """
    with native_chatter_muted():
        from ocr_model.reader import Reader

        reader = Reader.load(bundle)
    _give_back_memory()
    return reader


def _give_back_memory() -> None:
    """Gives the system what importing TensorFlow and loading a model have used and freed: some 75 MB."""
    gc.collect()
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def native_chatter_muted() -> Iterator[None]:
    """Keeps stderr shut while TensorFlow starts, whose first lines heed no setting. Exceptions are not affected."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "3":  # somebody wants to see them
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
