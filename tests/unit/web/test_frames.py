"""The frames of the feed, as a page reads them."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from playerstate.web.frames import Flag, Kind, Seen, json_frame, players_frame


def seen(*players: tuple[int, float, float, int, int], stride: int = 1) -> Seen:
    """Players by session id, x, y, slot and flags."""
    columns = list(zip(*players, strict=True)) or [()] * 5
    return Seen(
        np.array(columns[0], np.int64),
        (np.array(columns[1], np.float64), np.array(columns[2], np.float64)),
        np.array(columns[3], np.intp),
        np.array(columns[4], np.uint8),
        stride,
    )


class FramesTests(SynchronousTestCase):
    """What the page on the endpoint says of frames."""

    def body(self, frame: bytes, kind: str) -> bytes:
        """The body of one whole frame of this kind."""
        length, found, *zeros = struct.unpack_from("<I4B", frame)
        self.assertEqual((chr(found), zeros, length % 8), (kind, [0, 0, 0], 0))
        self.assertEqual(len(frame), 8 + length)
        return frame[8:]

    def test_json(self) -> None:
        """A body of JSON of any length is filled up to a multiple of 8 bytes, and parses."""
        for text in ("", "a", "ab", "abcdefgh", "ü"):
            with self.subTest(text=text):
                body = self.body(json_frame(Kind.GAUGES, {"why": text}), "G")
                self.assertEqual(json.loads(body), {"why": text})

    def test_no_nan(self) -> None:
        """What no browser parses is an error here."""
        self.assertRaises(ValueError, json_frame, Kind.START, {"x": float("nan")})

    def test_players(self) -> None:
        """The columns lie one behind the other, each where a typed array may begin."""
        big = 2**63 - 1
        players = [(big, 1.5, -2.5, 0, Flag.UNSAVED), (7, 3e9, 0.0, 9, Flag.LEAVING)]
        body = self.body(players_frame(seen(*players, (8, 0.0, 1.0, 65_536, 3), stride=4)), "P")
        self.assertEqual(struct.unpack_from("<II", body), (3, 4))
        self.assertEqual(struct.unpack_from("<3q", body, 8), (big, 7, 8))
        self.assertEqual(struct.unpack_from("<3f", body, 8 + 24), (1.5, 3e9, 0.0))
        self.assertEqual(struct.unpack_from("<3f", body, 8 + 36), (-2.5, 0.0, 1.0))
        self.assertEqual(struct.unpack_from("<3I", body, 8 + 48), (0, 9, 65_536))
        self.assertEqual(body[8 + 60 :], bytes([1, 2, 3]) + bytes(1))

    def test_no_players(self) -> None:
        """An empty game is a frame of counts alone."""
        self.assertEqual(self.body(players_frame(seen()), "P"), struct.pack("<II", 0, 1))

    def test_without_axes(self) -> None:
        """A class without two floats has no columns of them."""
        one = seen((5, 1.0, 2.0, 3, 1))
        without: Any = Seen(one.session_ids, (), one.slots, one.flags, 1)
        body = self.body(players_frame(without), "P")
        self.assertEqual(body, struct.pack("<IIqIB3x", 1, 1, 5, 3, 1))

    def test_beyond_f32(self) -> None:
        """A double that no f32 can hold is sent as the nearest that one can."""
        body = self.body(players_frame(seen((5, 1e300, -1e300, 0, 0))), "P")
        x, y = struct.unpack_from("<2f", body, 16)
        self.assertEqual((x, y), (3.4028234663852886e38, -3.4028234663852886e38))
