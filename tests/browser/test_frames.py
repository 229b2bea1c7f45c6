"""The page's reader of frames, against the server's writer."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from playerstate.web.frames import Flag, Kind, Seen, json_frame, players_frame
from tests.kit.browser import Site, visiting

if TYPE_CHECKING:
    from playwright.sync_api import Browser

READ = """
async ([text, size, hasAxes]) => {
    const { FrameReader, readJson, readPlayers } = await import("./page/frames.js");
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const reader = new FrameReader();
    const found = [];
    for (let at = 0; at < bytes.length; at += size) {
        for (const { kind, body } of reader.take(bytes.subarray(at, at + size))) {
            if (kind !== "P") { found.push([kind, readJson(body)]); continue; }
            const { n, stride, ids, x, y, slots, flags } = readPlayers(body, hasAxes);
            const plain = (column) => column && [...column];
            found.push([kind, { n, stride, ids: [...ids].map(String), x: plain(x), y: plain(y),
                                slots: plain(slots), flags: plain(flags) }]);
        }
    }
    return found;
}
"""


def test_frames_cut_anywhere(browser: Browser, serve: Callable[..., Site]) -> None:
    """What the server frames the page reads, however the network cuts it up."""
    ids = np.array([1, 2**63 - 1, 42], np.int64)
    axes = (np.array([1.5, -2.25, 1e300]), np.array([0.0, 3.0, -4.0]))
    slots, flags = np.array([0, 5, 9], np.intp), np.array([0, 1, 3], np.uint8)
    assert (Flag.UNSAVED, Flag.LEAVING) == (1, 2)
    columns = {"ids": ["1", str(2**63 - 1), "42"], "slots": [0, 5, 9], "flags": [0, 1, 3]}
    with visiting(browser, serve().url) as visit:
        visit.go()
        for has_axes in (True, False):
            seen = Seen(ids, axes if has_axes else (), slots, flags, stride=4)
            stream = (
                json_frame(Kind.START, {"format": 1, "name": "ä"})
                + players_frame(seen)
                + json_frame(Kind.END, {"why": ""})
            )
            x = [1.5, -2.25, float(np.finfo(np.float32).max)] if has_axes else None
            y = [0.0, 3.0, -4.0] if has_axes else None
            picture = {"n": 3, "stride": 4, "x": x, "y": y, **columns}
            wanted = [["S", {"format": 1, "name": "ä"}], ["P", picture], ["E", {"why": ""}]]
            text = base64.b64encode(stream).decode()
            for size in (1, 7, 8, 64, len(stream)):
                assert visit.page.evaluate(READ, [text, size, has_axes]) == wanted, size
        visit.mind_manners()
