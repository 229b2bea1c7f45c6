"""The live file is removed, replaced, cut or written over while it is in use."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from typing import Any

from playerstate import NotSaved, PlayerState, PlayerStateService
from playerstate.conversations.gateway import LOOK_EVERY, Gateway
from playerstate.conversations.intake import BATCH_MIN
from playerstate.interfaces import StoreBusy, StoreReplaced, StoreUnusable
from playerstate.live.file import LiveFile
from playerstate.live.leftover import PAGE, read_leftover
from playerstate.live.table import LiveTable
from playerstate.state.moved import MovedFields
from playerstate.testing import SteppedService
from playerstate.wire.messages import PING, Codec, Receipt, encode_numbered
from tests.kit.livefiles import IDENTITY, LiveFileTestCase, remaining
from tests.kit.players import SCHEMA


class SalvageTestCase(LiveFileTestCase):
    """A run whose live file something happens to."""

    def moved(self) -> SteppedService:
        """A run with two players, of whom nothing is saved."""
        stepped = self.start(save_within=60.0)
        for player in (1, 2):
            stepped.join(player)
            stepped.service.update(player, PlayerState(float(player), 0.0))
        return stepped

    def saved_and_moved(self) -> SteppedService:
        """A run with two players saved at their number, of whom 2 has moved on since."""
        stepped = self.moved()
        stepped.service.flush()
        stepped.settle()
        stepped.service.update(2, PlayerState(9.0, 0.0))
        return stepped


class RenewedTests(SalvageTestCase):
    """The rows are whole, and the file is made anew."""

    def check_renewed(self, stepped: SteppedService, why: str) -> None:
        """It is noticed and made anew; a move after that is found by the next start as well."""
        stepped.service.run.salvage.check()
        (line,) = self.log.having("it was made anew with the 2 players")
        self.assertEqual(stepped.service.ledger.live_file_losses, 1)
        self.assertIn(f"was {why} while it was in use", line)
        self.assertEqual(stepped.service._memory.lost(), "")
        stepped.service.update(2, PlayerState(22.0, 0.0))
        self.assertEqual({k: v[0] for k, v in remaining(self.path).items()}, {1: 1.0, 2: 22.0})
        error = self.assertRaises(StoreUnusable, LiveFile(self.path).claim, IDENTITY)
        self.assertIn("is in use by another process", str(error))
        self.successResultOf(stepped.stop())
        self.assertTrue(read_leftover(self.path).clean)
        self.assertEqual(self.store.players[2].values[0], 22.0)

    def test_untouched(self) -> None:
        """Nothing is done where nothing happened."""
        stepped = self.moved()
        before = os.stat(self.path).st_ino
        stepped.service.run.salvage.check()
        self.assertEqual(os.stat(self.path).st_ino, before)

    def test_renewed(self) -> None:
        """Whatever makes the next start miss the rows is noticed, and the file is made anew."""

        def remove(stepped: SteppedService) -> None:
            os.unlink(self.path)

        def write_over_header(stepped: SteppedService) -> None:
            with open(self.path, "r+b") as file:
                file.write(b"nonsense")

        def put_back_older_copy(stepped: SteppedService) -> None:
            """The copy, made before the last check, has the same header."""
            shutil.copyfile(self.path, f"{self.directory}/older")
            stepped.service.run.salvage.check()
            shutil.copyfile(f"{self.directory}/older", self.path)
            os.unlink(f"{self.directory}/older")

        for harm, why in (
            (remove, "removed or renamed"),
            (write_over_header, "written over"),
            (put_back_older_copy, "written over"),
        ):
            with self.subTest(harm.__name__):
                self.setUp()
                stepped = self.moved()
                harm(stepped)
                self.check_renewed(stepped, why)

    def test_renamed_over(self) -> None:
        """What was put in its place is kept under a name of its own."""
        stepped = self.moved()
        with open(f"{self.directory}/other", "wb") as file:
            file.write(b"precious")
        os.rename(f"{self.directory}/other", self.path)
        self.check_renewed(stepped, "replaced by another file")
        (aside,) = set(self.files()) - {"moves.live"}
        with open(f"{self.directory}/{aside}", "rb") as file:
            self.assertEqual(file.read(), b"precious")

    def test_cannot_be_made(self) -> None:
        """It is tried again for as long as it cannot be made, and logged once."""
        stepped = self.moved()
        os.rename(self.directory, self.directory + ".away")
        for _ in range(3):
            stepped.service.run.salvage.check()
        (line,) = self.log.having("cannot be made anew")
        self.assertEqual(stepped.service.ledger.live_file_losses, 1)
        self.assertIn("No such file or directory", line)
        os.mkdir(self.directory)
        self.check_renewed(stepped, "removed or renamed")

    def test_degraded_while_it_cannot_be_made(self) -> None:
        """That is a trouble for as long as it lasts, and no longer."""
        stepped = self.moved()
        os.rename(self.directory, self.directory + ".away")
        stepped.service.run.salvage.check()
        self.assertIn("No such file", stepped.service.ledger.snapshot().degraded)
        self.assertIn("they are lost", stepped.service._memory.unsaved_notice)
        os.mkdir(self.directory)
        self.check_renewed(stepped, "removed or renamed")
        self.assertEqual(stepped.service.ledger.snapshot().degraded, "")
        self.assertIn("saves them from the live file", stepped.service._memory.unsaved_notice)

    def test_timer(self) -> None:
        """It is looked at without being asked."""
        stepped = self.moved()
        os.unlink(self.path)
        stepped.reactor.advance(1.5)
        self.assertTrue(os.path.exists(self.path))


class CutTests(SalvageTestCase):
    """Rows that were cut off are not touched again: that would kill the process.

    Where one of them is, the process of the tests dies by SIGBUS.
    """

    def test_cut_before_any_touch(self) -> None:
        """Whatever is asked of the service next does not touch what was cut off.

        Where it does the process of the tests dies by SIGBUS.
        """
        touches: list[Callable[[PlayerStateService], object]] = [
            lambda service: service.update(2, PlayerState(9.0, 0.0)),
            lambda service: service.state(2),
            lambda service: service.progress(2),
            lambda service: service.leave(2),
            lambda service: service.join(2),
            lambda service: service.join(3),
            lambda service: service.flush(),
            lambda service: service.run.reopening.begin(),
            lambda service: service._gauges(),
            lambda service: service.stopService(),
        ]
        for touch in touches:
            self.setUp()
            stepped = self.saved_and_moved()
            os.truncate(self.path, 0)
            touch(stepped.service)
            stepped.reactor.advance(0.0)
            stepped.settle()
            self.successResultOf(stepped.stop())

    def test_cut_while_a_commit_is_under_way(self) -> None:
        """The commit report arrives before anything else checks the file."""
        stepped = self.moved()
        left = stepped.service.leave(1)
        stepped.reactor.advance(0.1)
        os.truncate(self.path, 0)
        stepped.settle()
        stepped.reactor.advance(1.5)
        self.successResultOf(left)
        self.successResultOf(stepped.stop())

    def test_cut_is_mended_at_once(self) -> None:
        """Once noticed, the file is made anew in the next turn, not at the next check."""
        stepped = self.saved_and_moved()
        os.truncate(self.path, 0)
        stepped.service.update(2, PlayerState(7.0, 0.0))
        stepped.reactor.advance(0.0)
        self.assertEqual({k: v[0] for k, v in remaining(self.path).items()}, {1: 1.0, 2: 7.0})
        self.successResultOf(stepped.stop())


class Mute:
    """A transport that sends nothing."""

    def send(self, *message: object) -> None:
        """Drop it."""

    def end(self, *peer: object) -> None:
        """Drop it."""


class Cutting:
    """A transport that cuts a file as soon as something is sent.

    Attributes:
        cuts: whether it is, for now.
        sent: what was sent, and to which player.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.cuts = False
        self.sent: list[tuple[int, bytes]] = []

    def send(self, session_id: int, peer: object, nonce: int, message: bytes) -> None:
        """Cut it."""
        self.sent.append((session_id, message))
        if self.cuts:
            os.truncate(self._path, 0)

    def end(self, session_id: int, peer: object) -> None:
        """Drop it."""


class CutAmidManyTests(SalvageTestCase):
    """The file is cut while many messages are taken in."""

    def test_cut_amid_many_messages(self) -> None:
        """A long batch of messages that are taken in one by one is looked after as it goes on."""
        stepped = self.start(save_within=60.0)
        gateway, codec, transport = Gateway(stepped.service), Codec(SCHEMA), Cutting(self.path)
        gateway.start()
        players = range(1, 3 * LOOK_EVERY + 1)
        for player in players:
            gateway.received_many(transport, [player], [player], [codec.encode_join(7, 0)], 0)
        stepped.reactor.advance(1.0)
        messages = [encode_numbered(PING, 0) for _ in range(LOOK_EVERY)]
        messages += [codec.encode_move(1, (9.0, 9.0)) + b"x" for _ in range(LOOK_EVERY)]
        messages += [encode_numbered(PING, 0) for _ in range(LOOK_EVERY)]
        messages[: LOOK_EVERY - 1] = [b"?"] * (LOOK_EVERY - 1)
        transport.cuts = True
        gateway.received_many(transport, players, players, messages, 0)
        transport.cuts = False
        self.assertEqual(len(self.log.having("it was made anew")), 0)
        stepped.reactor.advance(0.0)
        self.assertEqual(len(self.log.having("it was made anew")), 1)
        self.successResultOf(stepped.stop())

    def test_cut_amid_many_receipts(self) -> None:
        """Receipts that are due together are sent without a touch of the rows in between."""
        stepped = self.start(save_within=60.0)
        gateway, codec, transport = Gateway(stepped.service), Codec(SCHEMA), Cutting(self.path)
        gateway.start()
        players = range(1, 3 * LOOK_EVERY + 1)
        for player in players:
            gateway.received_many(transport, [player], [player], [codec.encode_join(7, 0)], 0)
        stepped.reactor.advance(1.0)
        messages = [codec.encode_move(player, (float(player), 9.0)) for player in players]
        gateway.received_many(transport, players, players, messages, 0)
        transport.cuts, transport.sent = True, []
        stepped.reactor.advance(0.02)
        shown = [(player, codec.decode_server(message)) for player, message in transport.sent]
        # As many a tick as spread over the period of receipts.
        self.assertEqual(shown, [(player, Receipt(player, 0)) for player in range(1, 11)])
        transport.cuts = False
        self.successResultOf(stepped.stop())

    def test_cut_while_many_moves_are_judged(self) -> None:
        """Moves taken in together are held to their bounds before the file is looked at.

        Where they do the process of the tests dies by SIGBUS.
        """
        stepped = self.start(save_within=60.0)
        gateway, codec = Gateway(stepped.service), Codec(SCHEMA)
        gateway.start()
        self.addCleanup(gateway.close)
        transport, players = Mute(), range(1, BATCH_MIN + 1)
        joins = [codec.encode_join(7, 0)] * BATCH_MIN
        gateway.received_many(transport, players, players, joins, 0)
        accept_many = MovedFields.accept_many

        def cut_and_accept(moved: MovedFields, fields: Any) -> Any:
            os.truncate(self.path, 0)
            return accept_many(moved, fields)

        self.patch(MovedFields, "accept_many", cut_and_accept)
        moves = [codec.encode_move(1, (9.0, 9.0))] * BATCH_MIN
        gateway.received_many(transport, players, players, moves, 0)
        self.assertEqual(stepped.service.ledger.applied, BATCH_MIN)
        stepped.reactor.advance(0.0)
        self.assertEqual(len(self.log.having("it was made anew")), 1)
        self.successResultOf(stepped.stop())


class WrittenOverTests(SalvageTestCase):
    """Rows that are not ours any more are loaded from the store again."""

    def check_read_again(self, stepped: SteppedService, why: str) -> None:
        """An overwritten player gets the stored state, and nothing else is saved."""
        stepped.reactor.advance(1.5)
        self.assertIn(f"was {why} while", self.log.having("it was made anew")[0])
        self.assertIn("player 1, 2", self.log.having("cut off or written over")[0])
        for player in (1, 2):
            state = PlayerState(float(player), 0.0)
            self.assertEqual(stepped.service.state(player), state)
        stepped.service.update(1, PlayerState(5.0, 0.0))
        self.assertEqual({k: v[0] for k, v in remaining(self.path).items()}, {1: 5.0, 2: 2.0})
        self.successResultOf(stepped.stop())
        found = {k: v.values[0] for k, v in self.store.players.items()}
        self.assertEqual(found, {1: 5.0, 2: 2.0})
        self.assertTrue(read_leftover(self.path).clean)

    def test_cut_with_edits(self) -> None:
        """An edit whose row was cut off fails, whether the player is online or not."""
        stepped = self.saved_and_moved()
        edits = [stepped.service.edit(2), stepped.service.edit(3, create=True)]
        os.truncate(self.path, 0)
        stepped.reactor.advance(1.5)
        for player, edited in zip((2, 3), edits, strict=True):
            error = self.failureResultOf(edited, NotSaved).value
            lost = f"lost with the live file before it was saved: player {player}"
            self.assertEqual(str(error), lost)
        self.assertEqual(sorted(stepped.service.table.slots), [1, 2])
        self.assertEqual(stepped.service.run.leaves.by_slot, {})
        self.successResultOf(stepped.stop())
        self.assertNotIn(3, self.store.players)

    def test_cut_after_a_return(self) -> None:
        """A leave that a return has ended fails if its row was cut off before it was saved."""
        stepped = self.saved_and_moved()
        left = stepped.service.leave(2)
        stepped.join(2)
        os.truncate(self.path, 0)
        stepped.reactor.advance(1.5)
        error = self.failureResultOf(left, NotSaved).value
        self.assertIn("lost with the live file before it was saved: player 2", str(error))
        self.assertEqual(stepped.service.state(2), PlayerState(2.0, 0.0))
        self.successResultOf(stepped.stop())

    def test_cut(self) -> None:
        """Rows that were cut off are not touched again: that would kill the process."""
        stepped = self.saved_and_moved()
        os.truncate(self.path, 0)
        self.check_read_again(stepped, "cut or grown")

    def test_copied_over(self) -> None:
        """Another run's file, with the same players in the same places and the same header."""
        for first_version in (0, 2**60):
            self.setUp()
            self.copy_over(first_version)

    def copy_over(self, first_version: int) -> None:
        """Copy a file over ours whose rows have these versions."""
        stepped = self.saved_and_moved()
        places = stepped.service.options.max_players
        other = LiveFile(f"{self.directory}/other")
        room = other.open(SCHEMA, places, read_leftover(self.path).identity)
        table = LiveTable(SCHEMA, places, lambda: 0.0, room, first_version=first_version)
        for player in (1, 2):
            slot = table.admit(player, (0.0, 0.0), 0)
            table.start_generation(slot, 0)
            table.apply(slot, 1, (66.0, 66.0), 2**60)
        other.close(False)
        shutil.copyfile(f"{self.directory}/other", self.path)
        os.unlink(f"{self.directory}/other")
        self.check_read_again(stepped, "written over")

    def test_copied_over_before_a_sweep(self) -> None:
        """A sweep checks first: rows that another process wrote are not saved as a player's."""
        stepped = self.saved_and_moved()
        stepped.service.update(1, PlayerState(8.0, 0.0))
        with open(self.path, "r+b") as file:
            file.write(bytes(PAGE + 128))
        self.check_first_lost(stepped)

    def check_first_lost(self, stepped: SteppedService) -> None:
        """The first player has what the store held, the second, whose row is whole, the newest."""
        stepped.service.flush()
        stepped.settle()
        self.assertEqual(self.store.players[1].values[0], 1.0)
        self.assertEqual(self.store.players[2].values[0], 9.0)
        self.assertEqual(sorted(self.store.players), [1, 2])
        self.successResultOf(stepped.stop())

    def test_half_that_does_not_count(self) -> None:
        """The next start does not find a foreign row beside one of ours."""
        stepped = self.saved_and_moved()
        stepped.service.update(1, PlayerState(8.0, 0.0))
        table = stepped.service.table
        behind = int(table._places[table.slots[2]]) ^ 1
        with open(self.path, "r+b") as file:
            file.write(bytes(PAGE + 128))
            # A half of the second that does not count, newer by its version.
            file.seek(PAGE + 64 * behind)
            row = (2**61, 2, table.slots[2], 1, 2**60, 99, 66.0, 66.0, 2**61)
            file.write(struct.pack("<QqIIqQddQ", *row))
        stepped.service.run.salvage.check()
        self.assertEqual(remaining(self.path)[2][0], 9.0)
        self.check_first_lost(stepped)

    def test_store_that_cannot_be_read(self) -> None:
        """It is asked again until it answers; a move meanwhile is not overwritten."""
        stepped = self.saved_and_moved()
        os.truncate(self.path, 0)
        load = stepped.service.run.reopening._reader.load

        def busy(session_id: int) -> Any:
            raise StoreBusy("locked")

        self.patch(stepped.service.run.reopening._reader, "load", busy)
        stepped.service.run.salvage.check()
        stepped.service.update(2, PlayerState(7.0, 0.0))
        self.patch(stepped.service.run.reopening._reader, "load", load)
        stepped.service.run.salvage.check()
        self.assertEqual(stepped.service.state(1), PlayerState(1.0, 0.0))
        self.assertEqual(stepped.service.state(2), PlayerState(7.0, 0.0))
        self.successResultOf(stepped.stop())


class StopTests(SalvageTestCase):
    """What a stop that gave up leaves to the next start."""

    def test_stop_that_gives_up(self) -> None:
        """A stop that gave up leaves a file that is not clean, made anew if it was lost."""
        stepped = self.moved()

        def busy(records: Any) -> Any:
            raise StoreBusy("locked")

        self.store.write = busy  # type: ignore[method-assign]
        os.unlink(self.path)
        stopped = stepped.stop()
        stepped.reactor.advance(31.0)
        stepped.settle()
        self.successResultOf(stopped)
        self.assertTrue(stepped.service.gave_up)
        leftover = read_leftover(self.path)
        self.assertFalse(leftover.clean)
        self.assertEqual(len(leftover.records), 2)

    def stopped_in_vain(self, stepped: SteppedService) -> None:
        """A stop gives up, and the next start finds what the store that is there now has not."""
        self.store.players.clear()
        self.successResultOf(stepped.stop())
        self.assertTrue(stepped.service.gave_up)
        self.assertIn("the next start saves them", self.log.having("newest state unsaved")[0])
        self.assertFalse(read_leftover(self.path).clean)
        again = self.start()
        again.settle()
        self.assertEqual(again.join(2).state, PlayerState(2.0, 0.0))
        self.successResultOf(again.stop())
        self.assertTrue(read_leftover(self.path).clean)

    def test_stop_whose_last_sync_finds_another_store(self) -> None:
        """All was saved, but into a store that is no more."""
        stepped = self.moved()
        stepped.service.flush()
        stepped.settle()
        sync = self.store.sync

        def replaced() -> None:
            self.store.sync = sync  # type: ignore[method-assign]
            raise StoreReplaced("removed or replaced")

        self.store.sync = replaced  # type: ignore[method-assign]
        self.stopped_in_vain(stepped)

    def test_stop_that_syncs_another_store(self) -> None:
        """A store switched to at the last moment syncs, but holds no players."""
        stepped = self.moved()
        stepped.service.flush()
        stepped.settle()
        persister = stepped.thread.persister
        live = persister._live

        def late() -> None:
            live()
            persister._note_replaced(StoreReplaced("removed or replaced"))
            stepped.reactor.deliver()

        self.patch(persister, "_live", late)
        self.stopped_in_vain(stepped)
