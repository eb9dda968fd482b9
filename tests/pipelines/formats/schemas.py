"""The published schemas, read without a network."""

from functools import cache
from pathlib import Path
from typing import Any

from lxml import etree

SCHEMAS = Path(__file__).parents[2] / "schemas"


class _BesideIt(etree.Resolver):
    """What a schema imports is the file of the same name beside it, whatever address it gives."""

    def resolve(self, url: str, public_id: str, context: Any) -> Any:
        return self.resolve_filename(str(SCHEMAS / url.rpartition("/")[2]), context)


@cache
def schema(name: str) -> etree.XMLSchema:
    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(_BesideIt())
    return etree.XMLSchema(etree.parse(str(SCHEMAS / name), parser))


def faults(data: bytes, name: str) -> list[str]:
    """What the schema has against a file; nothing if it is valid."""
    found = schema(name)
    found.validate(etree.fromstring(data))
    return [f"line {entry.line}: {entry.message}" for entry in found.error_log]
