"""`lora review`: prints its address, imports no model, and ends in order on Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lorafactory.errors import InputError
from lorafactory.review.room import Room
from lorafactory.review.server import address, listen
from lorafactory.workspace import LoraDir


def test_it_prints_the_address_and_ends_in_order(anna: LoraDir, tmp_path: Path) -> None:
    line = [sys.executable, "-X", "importtime", "-m", "lorafactory", "review", "anna", "--no-browser", "--port", "0"]
    line += ["--workspace", str(anna.root.parent.parent)]
    with (
        (tmp_path / "err").open("w+") as err,
        subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=err, text=True, env=os.environ | {"HOME": str(tmp_path)}
        ) as page,
    ):
        try:
            assert page.stdout is not None
            found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]{43})", page.stdout.readline().strip())
            assert found and int(found[1]) > 0
            page.send_signal(signal.SIGINT)
            assert page.wait(30) == 0
        finally:
            page.kill()
        err.seek(0)
        told = err.read()
    assert not re.search(r"\| +(torch|diffusers|transformers|matplotlib)$", told, re.MULTILINE)
    assert "Traceback" not in told and "anna of " in told


def test_a_port_that_is_taken_is_said_or_another_is_found() -> None:
    taken = listen("127.0.0.1", 0, exactly=True)
    port = taken.getsockname()[1]
    assert taken.proto == socket.IPPROTO_TCP  # else asyncio sets no TCP_NODELAY, and each answer comes 40 ms late
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}.*--port names another"):
        listen("127.0.0.1", port, exactly=True)
    other = listen("127.0.0.1", port, exactly=False)
    assert other.getsockname()[1] != port and other.family == socket.AF_INET
    taken.close()
    other.close()


def test_the_address_is_one_that_a_browser_takes(room: Room) -> None:
    token = room.keys.token
    assert address(room, "127.0.0.1", 1) == address(room, "0.0.0.0", 1) == f"http://127.0.0.1:1/?token={token}"
    assert address(room, "::1", 1) == f"http://[::1]:1/?token={token}"
