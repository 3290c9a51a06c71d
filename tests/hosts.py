"""Host names that only a test knows, for whatever resolves names in Python."""

import socket
from typing import Any

import pytest


def resolve(monkeypatch: pytest.MonkeyPatch, name: str, *addresses: str) -> None:
    """Give the name these addresses; without any nobody knows it."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **more: Any) -> list[Any]:
        if host != name:
            return real(host, *rest, **more)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [found for each in addresses for found in real(each, *rest, **more)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
