# SPDX-License-Identifier: GPL-3.0-or-later
"""Every message survives the line it is written to; a wrong line names what is wrong."""

import json

import pytest

from wav2sem_blender.worker import protocol

MESSAGES = [
    protocol.Animate(job="job1", audio="/tmp/ä\udcff b.wav", model="m", style=[0.5, 0.5], semantic_strength=0.25),
    protocol.Listen(job="job1", audio="/tmp/ä\udcff b.wav"),
    protocol.Shutdown(),
    protocol.Ready(),
    protocol.Progress(job="job1", stage="audio", fraction=0.5),
    protocol.Done(job="job1", result="/r.npz", engine="onnx", device="cpu", notes=["one", "two\nlines"]),
    protocol.Error(job="job1", message='It says "no".'),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_round_trip(message):
    line = protocol.encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    line.decode("ascii")
    is_command = isinstance(message, protocol.Command)
    assert (protocol.decode_command if is_command else protocol.decode_event)(line) == message


def test_the_command_line_is_the_documented_one():
    message = json.loads(protocol.encode(protocol.Animate(job="a", audio="/x.wav")))
    assert message == {
        "cmd": "animate",
        "job": "a",
        "audio": "/x.wav",
        "model": "default",
        "engine": "auto",
        "device": "auto",
        "style": 0,
        "semantic_strength": 1.0,
        "listen": False,
    }


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (b"garbage", "Not a line of JSON"),
        (b"[1, 2]", "Unknown cmd"),
        (b'{"cmd": "format_disk"}', "format_disk"),
        (b'{"cmd": "animate", "job": "a"}', "audio"),
        (b'{"cmd": "animate", "job": "a", "audio": "b", "colour": 1}', "colour"),
        (b'{"event": "ready"}', "Unknown cmd"),
    ],
)
def test_wrong_lines_are_named(line, part):
    with pytest.raises(protocol.ProtocolError, match=part):
        protocol.decode_command(line)


def test_numbers_must_be_finite():
    with pytest.raises(ValueError, match="not JSON compliant"):
        protocol.encode(protocol.Animate(job="a", audio="b", semantic_strength=float("nan")))
