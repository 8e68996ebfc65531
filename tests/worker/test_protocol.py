# SPDX-License-Identifier: GPL-3.0-or-later
"""Every message survives its line of JSON; a wrong line names what is wrong."""

import json

import pytest

from wav2sem_blender.errors import Text
from wav2sem_blender.worker import protocol

MESSAGES = [
    protocol.Animate(job="job1", audio="/tmp/ä\udcff b.wav", model="m", style=[0.5, 0.5], semantic_strength=0.25),
    protocol.Animate(job="job1", audio="a.wav", speed=0.5, strength=2.0, smoothing_s=0.1, available=["A", "I"]),
    protocol.Animate(job="job1", audio="a.wav", articulation=-0.5, tongue=["tongueOut"]),
    protocol.Listen(job="job1", audio="/tmp/ä\udcff b.wav"),
    protocol.Call(
        job="job1", module="batch.line", arguments='{"audio": "/tmp/\\u00e4.wav"}', audio="/tmp/\u00e4.wav", model="/m"
    ),
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
    if isinstance(message, protocol.Command):
        assert protocol.decode_command(line) == message
    else:
        assert protocol.decode_event(json.loads(line)) == message


def test_a_text_keeps_its_template_and_values():
    inner = Text("exit status {status}", status=3)
    values = {"result": [Text("It ended ({how})", how=inner)], "plain": {"template": "x"}}
    back = protocol.with_texts(json.loads(json.dumps(protocol.plain(values))))
    assert back == values and back["result"][0].values["how"].values == {"status": 3}


def test_the_command_line_is_the_documented_one():
    message = json.loads(protocol.encode(protocol.Animate(job="a", audio="/x.wav")))
    assert message == {
        "cmd": "animate",
        "job": "a",
        "audio": "/x.wav",
        "recording": "",
        "begins_s": None,
        "model": "default",
        "engine": "auto",
        "device": "auto",
        "style": 0,
        "articulation": 0.0,
        "semantic_strength": 1.0,
        "speed": 1.0,
        "strength": 1.0,
        "smoothing_s": 0.0,
        "visemes": "",
        "available": [],
        "tongue": [],
        "listen": False,
        "transcript": "",
        "transcript_file": "",
        "language": "",
        "track_file": "",
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
        (b'{"cmd": [1]}', "Unknown cmd"),
        (b'{"cmd": {"a": 1}}', "Unknown cmd"),
        (b'{"cmd": null}', "Unknown cmd"),
        (b"[" * 100_000, "Not a line of JSON"),
        (b"\xff\xfe", "Not a line of JSON"),
        (b'{"cmd": "listen", "job": "../victim", "audio": "b"}', "names no job"),
        (b'{"cmd": "listen", "job": "", "audio": "b"}', "names no job"),
        (b'{"cmd": "listen", "job": "a/b", "audio": "b"}', "names no job"),
        (b'{"cmd": "listen", "job": "a\\n", "audio": "b"}', "names no job"),
        (b'{"cmd": "listen", "job": 7, "audio": "b"}', "job is not str"),
        (b'{"cmd": "listen", "job": "a", "audio": null}', "audio is not str"),
        (b'{"cmd": "animate", "job": "a", "audio": "b", "speed": "fast"}', "speed is not float"),
        (b'{"cmd": "animate", "job": "a", "audio": "b", "speed": NaN}', "speed is not float"),
        (b'{"cmd": "animate", "job": "a", "audio": "b", "listen": 1}', "listen is not bool"),
        (b'{"cmd": "animate", "job": "a", "audio": "b", "style": [[]]}', "style is not int"),
        (b'{"cmd": "animate", "job": "a", "audio": "b", "tongue": "tongueOut"}', "tongue is not list"),
    ],
)
def test_wrong_lines_are_named(line, part):
    with pytest.raises(protocol.ProtocolError, match=part):
        protocol.decode_command(line)


def test_numbers_must_be_finite():
    with pytest.raises(ValueError, match="not JSON compliant"):
        protocol.encode(protocol.Animate(job="a", audio="b", semantic_strength=float("nan")))
