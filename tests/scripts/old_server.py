"""No database: a socket that greets as an old MariaDB and answers questions for its version."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

GREETING = "5.5.5-{version}"  # how MariaDB greets clients that know only MySQL


def packet(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


def text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()


def rows(names: list[str], values: list[list[str]]) -> bytes:
    """A result set, as the text protocol sends it."""
    end = b"\xfe\x00\x00\x02\x00"
    column = b"\x0c\x2d\x00\xff\x00\x00\x00\xfd\x00\x00\x00\x00\x00"  # utf8mb4, VAR_STRING
    bodies = [bytes([len(names)])]
    bodies += [text("def") + text("") * 3 + text(name) + text(name) + column for name in names]
    bodies += [end, *(b"".join(map(text, row)) for row in values), end]
    return b"".join(packet(number, body) for number, body in enumerate(bodies, 1))


def answer(query: str, version: str) -> bytes:
    lowered = query.lower()
    if lowered.startswith("show variables where"):
        return rows(["Variable_name", "Value"], [["version", version], ["read_only", "OFF"]])
    if "version()" in lowered:
        return rows(["version()"], [[version]])
    if "isolation" in lowered:
        return rows(["@@tx_isolation"], [["REPEATABLE-READ"]])
    if lowered.startswith("show variables"):
        return rows(["Variable_name", "Value"], [[lowered.split("'")[1], ""]])
    if lowered.startswith("select"):
        return rows(["?"], [["0"]])
    return packet(1, b"\x00\x00\x00\x02\x00\x00\x00")  # OK


def read_packet(connection: socket.socket) -> bytes:
    head = connection.recv(4, socket.MSG_WAITALL)
    size = int.from_bytes(head[:3], "little")
    return connection.recv(size, socket.MSG_WAITALL) if len(head) == 4 else b""


def serve(listener: socket.socket, version: str) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            greeting = b"\x0a" + GREETING.format(version=version).encode() + b"\x00"
            greeting += struct.pack("<I", 1) + b"12345678\x00"
            capabilities = 0x00088200 | 0x00000008 | 0x00002000  # 4.1, secure, plugin, database
            greeting += struct.pack("<HBHH", capabilities & 0xFFFF, 45, 2, capabilities >> 16)
            greeting += bytes([21]) + b"\x00" * 10 + b"123456789012\x00mysql_native_password\x00"
            connection.sendall(packet(0, greeting))
            read_packet(connection)
            connection.sendall(packet(2, b"\x00\x00\x00\x02\x00\x00\x00"))
            while body := read_packet(connection):
                if body[0] == 1:  # COM_QUIT
                    break
                query = body[1:].decode(errors="replace") if body[0] == 3 else ""
                connection.sendall(answer(query, version))


@contextmanager
def old_mariadb(version: str) -> Iterator[int]:
    """Yield the port of a socket that takes itself for this version."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener, version), daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
