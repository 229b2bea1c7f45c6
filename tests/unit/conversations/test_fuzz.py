"""Scenarios of datagrams that Hypothesis tells; `tests.proof.fuzz` says what must hold in them."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.kit.support import LAW
from tests.proof.fuzz import MAX_PLAYERS, Scenario, Server, play

byte = st.integers(0, 255)
acts = st.one_of(
    st.tuples(st.just(0), byte).map(bytes),
    st.builds(
        lambda noise, whence: bytes((1, len(noise), *noise, whence)), st.binary(max_size=60), byte
    ),
    st.builds(
        lambda player, message, whence: bytes((2, player, len(message), *message, whence)),
        *(st.integers(0, 7), st.binary(max_size=40), byte),
    ),
    st.tuples(st.just(3), byte, byte, byte, st.integers(0, 7), byte).map(bytes),
    st.builds(
        lambda number, fields, player, whence: bytes((4, number, *fields, player, whence)),
        *(byte, st.binary(min_size=16, max_size=16), st.integers(0, 7), byte),
    ),
    st.tuples(st.just(5), byte, byte, st.integers(0, 7), byte).map(bytes),
    st.tuples(st.just(6), byte, byte, st.integers(0, 7), byte).map(bytes),
    st.tuples(st.just(7), *(st.integers(0, 7),) * 2, st.integers(0, 7), byte, byte).map(bytes),
    st.tuples(st.just(8), byte, byte, byte).map(bytes),
)
scenarios = st.lists(acts, max_size=60).map(b"".join)


class FuzzTests(SynchronousTestCase):
    """The way of a datagram, from the port to the store, whatever it holds."""

    def server(self) -> Server:
        """A server that is let go of when the test is over."""
        server = Server()
        self.addCleanup(server.close)
        return server

    @settings(LAW, max_examples=300)
    @given(scenario=scenarios)
    def test_stories(self, scenario: bytes) -> None:
        """Nothing is raised, nothing grows, the books balance."""
        play(scenario)

    @settings(LAW, max_examples=150)
    @given(scenario=st.binary(max_size=600))
    def test_bytes(self, scenario: bytes) -> None:
        """The same of scenarios that nobody wrote."""
        play(scenario)

    def test_stories_go_somewhere(self) -> None:
        """A scenario can bring a player in, move them, and take them out again."""
        server = self.server()
        join = bytes((3, 1, 0, 0, 1, 1, 1, 0))
        move = bytes((4, 1)) + bytes(16) + bytes((1, 1, 0))
        leave = bytes((5, 0, 1, 1, 1, 0))
        server.live(Scenario(join + move + leave + bytes((0, 0x81)) * 3))
        books = server.service.ledger.snapshot()
        self.assertEqual((books.joins, books.applied, books.leaves), (1, 1, 1))
        self.assertGreater(MAX_PLAYERS, 1)

    def test_the_program_is_in_them(self) -> None:
        """In a scenario a player is moved by the program, sees it, and is put back by the judge."""
        server = self.server()
        join, wait = bytes((3, 1, 0, 0, 1, 1, 1, 0)), bytes((0, 3))
        change, seen = bytes((8, 0, 0, 9)), bytes((7, 1, 1, 0, 5, 0))
        left = bytes((4, 6, *struct.pack("<dd", -1.0, 0.0), 1, 1, 0))
        leave, save = bytes((5, 0, 9, 1, 1, 0)), bytes((0, 0x81)) * 3
        server.live(Scenario(join + wait + change + wait + seen + left + wait + leave + save))
        books = server.service.ledger.snapshot()
        self.assertEqual((books.applied, books.states, books.leaves), (2, 2, 1))
        self.assertEqual(books.rejected, {"left": 1})

    def test_it_bites(self) -> None:
        """A server that counts a message twice, or raises, is found."""
        server = self.server()
        self.patch(server.gateway, "malformed", lambda reason, number=1: 1 / 0)
        self.assertRaises(ZeroDivisionError, server.live, Scenario(bytes((1, 3, 0, 0, 0, 0))))
        server = self.server()
        server.service.ledger.received += 1
        self.assertRaises(AssertionError, server.check)
