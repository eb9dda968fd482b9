"""A decoder process that has been taken over: it answers with the lines of the document.

The first line is the answer to the opening, each other one that to a page. `ID` stands for the number of the request;
`SHRINK` takes the memory of the pixels away, `CLOSE` closes the socket and stays.
"""

from __future__ import annotations

import json
import os
import socket
import sys

PAGE = b'{"id": ID, "height": 100, "width": 100, "reduced_by": 1, "dpi": null}'


def main(socket_number: int) -> None:
    connection = socket.socket(fileno=socket_number)
    lines: list[bytes] = []
    pixels = -1
    while True:
        data, files, _, _ = socket.recv_fds(connection, 2**16, 1)
        if not data:
            return
        request = json.loads(data)
        if request["do"] == "start":
            pixels = files[0]
            answer = b'{"id": ID, "ready": true}'
        elif request["do"] == "open":
            lines = os.pread(files[0], 2**20, 0).split(b"\n")
            answer = lines[0]
        else:
            answer = lines[1 + request["index"]]
        if answer == b"SHRINK":
            os.ftruncate(pixels, 3)
            answer = PAGE
        if answer == b"CLOSE":
            connection.close()
            sys.stdin.read()
        connection.send(answer.replace(b"ID", str(request["id"]).encode()).replace(b"LONG", b"x" * 100_000))


if __name__ == "__main__":
    main(int(sys.argv[1]))
