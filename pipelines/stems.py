"""Names from outside (files, objects, members of archives, columns) -> paths below the output folder."""

from __future__ import annotations

import hashlib
import os
import re

_LONGEST_BYTES = 200  # of a component: a page number, an extension and a suffix still fit into the 255 of a file name
_SHORTENED_BYTES = 160
_NO_NAME = r"[\x00-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]"  # control characters; halves of pairs
_BACKSLASH = "\\"
_UNSAFE = re.compile(rf"{_NO_NAME}|(?:^|/)\.{{0,2}}(?:/|$)")


def safe_path(relative: str) -> str:
    """A relative path that stays below its folder and that every part of can be the name of a file.

    Steps upwards and control characters are percent-encoded, a component of more than 200 bytes is cut and gets a
    digest of the whole; what is harmless stays as it is.

    >>> safe_path("a/../../b\\n.jpg"), safe_path("/etc//./passwd")
    ('a/%2E%2E/%2E%2E/b%0A.jpg', 'etc/passwd')
    >>> safe_path("x" * 300).startswith("xxx"), len(safe_path("x" * 300))
    (True, 177)
    """
    if len(relative) <= _LONGEST_BYTES and relative.isascii() and not _UNSAFE.search(relative):
        return relative
    return "/".join(_safe_component(part) for part in relative.split("/") if part not in ("", "."))


def safe_stem(relative: str) -> str:
    """`safe_path` without the extension.

    >>> safe_stem("a/scan.jpg"), safe_stem("../.jpg")
    ('a/scan', '%2E%2E/.jpg')
    """
    return safe_path(os.path.splitext(relative)[0])


def member_stem(archive_stem: str, member: str) -> str:
    """The stem of a member of an archive, below the archive's; Windows may have written its backslashes.

    >>> member_stem("box", "1901\\\\7.png"), member_stem("box", "/../etc/x.png"), member_stem("box", "./")
    ('box/1901/7', 'box/%2E%2E/etc/x', 'box/%2E')
    """
    return f"{archive_stem}/{safe_stem(member.replace(_BACKSLASH, '/')) or '%2E'}"


def page_suffix(first: int, last: int | None) -> str:
    """What the pages of a file add to its stem; nothing where all of it is read.

    >>> page_suffix(7, 7), page_suffix(3, 12), page_suffix(1, None)
    ('.page-0007', '.pages-0003-0012', '')
    """
    if last is None:
        return "" if first == 1 else f".pages-{first:04d}-"
    return f".page-{first:04d}" if first == last else f".pages-{first:04d}-{last:04d}"


def short_digest(name: str) -> str:
    """16 hexadecimal digits that stand for the name.

    >>> short_digest("a/scan.jpg")
    '9b26991f1e5dd7bf'
    """
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _safe_component(part: str) -> str:
    if part == "..":
        return "%2E%2E"
    part = re.sub(_NO_NAME, _percent, part)
    if len(os.fsencode(part)) <= _LONGEST_BYTES:
        return part
    kept = part[:_SHORTENED_BYTES]
    while len(os.fsencode(kept)) > _SHORTENED_BYTES:
        kept = kept[:-1]
    return f"{kept}~{short_digest(part)}"


def _percent(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))
