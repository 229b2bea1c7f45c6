"""The file of players whom the store can never take."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import time
from typing import Any

from twisted.logger import LogLevel, capturedLogs, formatEvent

from playerstate.state.schema import StateSchema
from playerstate.stores.sqlite import refused
from playerstate.stores.sqlite.refused import RefusedFile
from tests.kit.databases import PLAIN, DirectoryTestCase, records, state_class
from tests.kit.support import Everything


class RefusedFileTests(DirectoryTestCase):
    """``<database>.refused.jsonl``."""

    def setUp(self) -> None:
        """No file yet."""
        super().setUp()
        self.refused_path = f"{self.path}.refused.jsonl"
        self.file = RefusedFile(self.path, PLAIN)

    def add(self, session_id: int, *, x: float = 1.0, updated_at: int = 5, why: str = "no") -> None:
        """Keep a player."""
        self.file.add(records(PLAIN, (session_id, x, 2.0, updated_at)), [why])

    def lines(self) -> list[str]:
        """The file's lines."""
        with open(self.refused_path, encoding="ascii") as file:
            return file.read().splitlines()

    def entries(self) -> list[dict[str, Any]]:
        """The file's entries."""
        return [json.loads(line) for line in self.lines()]

    def ids(self) -> list[int]:
        """Whose entries there are, in order."""
        return [entry["session_id"] for entry in self.entries()]

    def test_made_when_needed(self) -> None:
        """There is no file before there is a player for it, and no other file afterwards."""
        self.assertEqual(os.listdir(self.directory), [])
        self.add(1)
        self.assertEqual(os.listdir(self.directory), ["players.db.refused.jsonl"])

    def test_entry(self) -> None:
        """An entry has the fields by name, when they were reached, why they were refused, when."""
        self.patch(time, "gmtime", lambda: time.struct_time((2030, 1, 2, 3, 4, 5, 0, 0, 0)))
        self.file.add(records(PLAIN, (7, 1 / 3, -2.5, 1_700_000_000_123_456)), ["too far"])
        self.assertEqual(
            self.entries(),
            [
                {
                    "session_id": 7,
                    "x": 1 / 3,
                    "y": -2.5,
                    "updated_at": 1_700_000_000_123_456,
                    "reason": "too far",
                    "refused_at": "2030-01-02T03:04:05Z",
                }
            ],
        )

    def test_remove(self) -> None:
        """A player's entry can be removed; the others stay, and lines that are no entries."""
        self.assertEqual(self.file.remove(1), 0)
        self.assertEqual(os.listdir(self.directory), [])
        self.add(1)
        self.add(2)
        with open(self.refused_path, "a") as file:
            file.write("a remark\n")
        self.assertEqual(RefusedFile(self.path, PLAIN).remove(1), 1)
        self.assertEqual(json.loads(self.lines()[0])["session_id"], 2)
        self.assertEqual(self.lines()[1:], ["a remark"])
        self.add(1)
        self.assertEqual(self.file.remove(1), 1)

    def test_every_kind(self) -> None:
        """Fields of each kind are kept as what they are."""
        file = RefusedFile(self.path, StateSchema.of(Everything))
        plain = (0.1 + 0.2, -(2**63), False, "größe\n", -0.25)
        file.add(records(StateSchema.of(Everything), (2**63 - 1, *plain, 3)), ["no"])
        (entry,) = self.entries()
        self.assertEqual(entry["session_id"], 2**63 - 1)
        names = ("x", "hp", "alive", "zone", "angle")
        self.assertEqual(tuple(entry[name] for name in names), plain)
        self.assertIs(entry["alive"], False)

    def test_any_text(self) -> None:
        """Whatever a text or a reason holds, an entry is one line of ASCII."""
        text = 'a\nb\r\t"\\ \u2028 \U0001f409'
        schema = StateSchema.of(state_class(zone=""))
        RefusedFile(self.path, schema).add(records(schema, (1, text, 3)), [text])
        (line,) = self.lines()
        self.assertEqual((json.loads(line)["zone"], json.loads(line)["reason"]), (text, text))

    def test_one_line_a_player(self) -> None:
        """Each player has a line of their own, in the order in which they came."""
        for session_id in (3, 1, 2):
            self.add(session_id)
        self.assertEqual(self.ids(), [3, 1, 2])

    def test_many_together(self) -> None:
        """Thousands of players take one write and one sync, known ones among them as well."""
        syncs: list[int] = []
        sync = os.fsync
        self.patch(os, "fsync", lambda fd: (syncs.append(fd), sync(fd)))
        batch = records(PLAIN, *((number, 1.0, 2.0, 5) for number in range(1, 2001)))
        for count in (1, 2):
            self.file.add(batch, ["no"] * len(batch))
            self.assertEqual(len(syncs), count)
        self.file.add(records(PLAIN, (5000, 1.0, 2.0, 5), (6000, 1.0, 2.0, 5)), ["no", "no"])
        self.assertEqual(len(syncs), 3)
        self.assertEqual(self.ids(), [*range(1, 2001), 5000, 6000])

    def test_same_player_again_and_again(self) -> None:
        """A player who is refused again and again makes the file no larger."""
        self.add(1)
        size = os.path.getsize(self.refused_path)
        for _ in range(50):
            self.add(1)
        self.assertEqual(os.path.getsize(self.refused_path), size)

    def test_later_entry(self) -> None:
        """A later entry of a player takes the place of the earlier; the others stay."""
        self.add(1, x=1.0, updated_at=5, why="first")
        self.add(2, x=2.0)
        self.add(1, x=9.0, updated_at=6, why="second")
        found = [(e["session_id"], e["x"], e["updated_at"], e["reason"]) for e in self.entries()]
        self.assertEqual(found, [(2, 2.0, 5, "no"), (1, 9.0, 6, "second")])

    def test_ids_that_begin_alike(self) -> None:
        """A player is told from all others, whatever their ids have in common."""
        for session_id in (1, 11, 111):
            self.add(session_id)
        self.add(11, x=4.0)
        self.assertEqual(self.ids(), [1, 111, 11])

    def test_next_start(self) -> None:
        """What a server before this one kept stays."""
        self.add(1)
        self.file = RefusedFile(self.path, PLAIN)
        self.add(2)
        self.assertEqual(self.ids(), [1, 2])

    def test_other_state_class(self) -> None:
        """Entries made under another state class stay as they are."""
        schema = StateSchema.of(state_class(hp=3))
        RefusedFile(self.path, schema).add(records(schema, (1, 9, 5)), ["no"])
        self.add(2)
        self.assertEqual(self.ids(), [1, 2])
        self.assertEqual(self.entries()[0]["hp"], 9)

    def test_taken_out_by_hand(self) -> None:
        """The file may be emptied or removed by hand, and is begun anew."""
        self.add(1)
        open(self.refused_path, "w").close()
        self.add(2)
        self.assertEqual(self.ids(), [2])
        os.remove(self.refused_path)
        self.add(3)
        self.assertEqual(self.ids(), [3])

    def test_edited_by_hand(self) -> None:
        """A line that was written by hand and is no entry stays, and no entry is refused for it."""
        for content in (
            '{"session_id": 9}',  # without an end of the line
            "a note to myself\n",
            "\n",
            "{}\n",
            "[1]\n",
            "7\n",
            "gr\u00f6\u00dfe\n",
        ):
            with open(self.refused_path, "w", encoding="utf-8") as file:
                file.write(content)
            self.add(1, x=1.0)
            self.add(1, x=2.0)
            with open(self.refused_path, encoding="utf-8") as file:
                *kept, line = file.read().splitlines()
            self.assertEqual(kept, [content.rstrip("\n")])
            self.assertEqual(json.loads(line)["x"], 2.0)

    def test_bound(self) -> None:
        """The file holds 64 MiB."""
        self.assertEqual(refused.MOST_BYTES, 64 * 2**20)

    def test_full(self) -> None:
        """A full file takes no more entries; the log has the entry instead."""
        self.add(1)
        size = os.path.getsize(self.refused_path)
        self.patch(refused, "MOST_BYTES", 2 * size)
        self.add(2)
        before = self.lines()
        with capturedLogs() as logs:
            self.add(3, x=7.5, why="too far")
        self.assertEqual(self.lines(), before)
        (event,) = logs
        self.assertEqual(event["log_level"], LogLevel.error)
        line = formatEvent(event)
        self.assertIn(f"{self.refused_path} is full", line)
        self.assertIn('"session_id": 3, "x": 7.5', line)
        self.assertIn('"reason": "too far"', line)

    def test_replaced_when_full(self) -> None:
        """A full file still takes a later entry of a player whom it holds."""
        self.add(1)
        self.add(2)
        self.patch(refused, "MOST_BYTES", os.path.getsize(self.refused_path))
        self.add(1, x=3.0)
        self.assertEqual([(e["session_id"], e["x"]) for e in self.entries()], [(2, 1.0), (1, 3.0)])

    def test_room_again(self) -> None:
        """Once an entry was removed from a full file, it takes others."""
        self.add(1)
        self.patch(refused, "MOST_BYTES", os.path.getsize(self.refused_path))
        with capturedLogs():
            self.add(2)
        os.remove(self.refused_path)
        self.add(2)
        self.assertEqual(self.ids(), [2])

    def test_no_directory(self) -> None:
        """A file that cannot be made is an error, which keeps the player with the server."""
        shutil.rmtree(self.directory)
        self.assertRaises(FileNotFoundError, self.add, 1)

    def test_unwritable(self) -> None:
        """A file that cannot be written is an error, and what there was stays."""
        self.add(1)
        self.file = RefusedFile(self.path, PLAIN)
        os.mkdir(f"{self.refused_path}.new")
        self.assertRaises(OSError, self.add, 2)
        self.assertEqual(self.ids(), [1])
        os.rmdir(f"{self.refused_path}.new")
        self.add(2)
        self.assertEqual(self.ids(), [1, 2])

    def test_full_disk(self) -> None:
        """Where the disk is full nothing is lost of what there was; later it goes on."""
        self.add(1)

        def fail(fd: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patched = self.patch(os, "fsync", fail)
        self.assertRaises(OSError, self.add, 2)
        self.assertEqual(self.ids(), [1])
        patched.restore()
        self.add(2)
        self.assertEqual(self.ids(), [1, 2])
        self.assertEqual(os.listdir(self.directory), ["players.db.refused.jsonl"])

    def test_disk_fills(self) -> None:
        """An entry of which only a part went in is taken out again."""
        self.add(1)
        size = os.path.getsize(self.refused_path)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGXFSZ, ignored)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        self.assertRaises(OSError, self.add, 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.assertEqual(self.ids(), [1])
        self.add(2)
        self.assertEqual(self.ids(), [1, 2])

    def test_many(self) -> None:
        """One more player is one more line: the others are neither read nor written again."""
        self.add(1)
        self.patch(self.file, "_lines", None)
        self.patch(self.file, "_replace", None)
        for session_id in range(2, 50):
            self.add(session_id)
        self.assertEqual(self.ids(), list(range(1, 50)))

    def test_one_more_after_a_note(self) -> None:
        """A line without an end, written by hand, is not run into."""
        self.add(1)
        with open(self.refused_path, "a", encoding="utf-8") as file:
            file.write("seen, Jo")
        self.add(2)
        self.assertEqual(self.lines()[1], "seen, Jo")
        self.assertEqual(json.loads(self.lines()[2])["session_id"], 2)

    def test_killed_while_writing(self) -> None:
        """An entry that a kill cut short is gone with the next start; its row comes again."""
        self.add(1)
        self.add(2)
        with open(self.refused_path, "rb+") as file:
            file.truncate(os.path.getsize(self.refused_path) - 20)
        self.file = RefusedFile(self.path, PLAIN)
        self.add(3)
        self.assertEqual(self.ids(), [1, 3])

    def test_odd_ids(self) -> None:
        """An id that is none, written by hand, is left where it is."""
        with open(self.refused_path, "w", encoding="utf-8") as file:
            file.write('{"session_id": [1]}\n')
        self.add(1)
        self.add(1)
        self.assertEqual(len(self.lines()), 2)

    def test_on_disk(self) -> None:
        """An entry is on disk before it takes the place of what there was."""
        done: list[str] = []
        replace = os.replace

        def note_replace(source: str, target: str) -> None:
            done.append("replace")
            replace(source, target)

        self.patch(os, "fsync", lambda fd: done.append(os.readlink(f"/proc/self/fd/{fd}")))
        self.patch(os, "replace", note_replace)
        self.add(1)
        self.assertEqual(done[:2], [f"{self.refused_path}.new", "replace"])
