"""``playerstate top``: lines, and the screen."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from playerstate.cli import top
from playerstate.cli.metrics import read_metrics
from playerstate.cli.web import WebError
from tests.kit.metrics import METRICS


class FakeWeb:
    """An endpoint that answers with these texts or errors, one after the other."""

    url = "http://server"

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)

    def read(self, path: str) -> str:
        """The next answer."""
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def shown(screen: Any) -> str:
    """A screen as text."""
    console = Console(width=100, record=True, file=StringIO())
    console.print(screen)
    return console.export_text()


class LineTests(SynchronousTestCase):
    """What is shown of one moment."""

    def lines(self, *changes: tuple[str, str]) -> dict[str, top.Line]:
        """The lines by name, of figures with these changes."""
        text = METRICS
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        before, now = read_metrics(METRICS, 10.0), read_metrics(text, 12.0)
        return {line.name: line for line in top.lines_of(top.figures_of(now, before))}

    def test_lines(self) -> None:
        """Each line has what the server shows; lines of which it shows nothing are left out."""
        lines = self.lines(("applied_total 5000", "applied_total 7000"))
        texts = {name: line.text for name, line in lines.items()}
        self.assertEqual(
            texts,
            {
                "players": "100 online, 2 leaving",
                "moves a second": "1,000 applied, 0 rejected",
                "oldest unsaved": "2.5 s of 5 s promised",
                "queue": "4,096 of 8,192 rows",
                "store errors": "0 in all",
                "on disk": "live file 2.0 MiB",
            },
        )
        self.assertEqual((lines["queue"].share, lines["oldest unsaved"].share), (0.5, 0.5))
        self.assertFalse(any(line.is_wrong for line in lines.values()))

    def test_commits(self) -> None:
        """Latencies are those of the commits since the last look, as bounds of the histogram."""
        lines = self.lines(
            ('le="0.01"} 98.0', 'le="0.01"} 99.0'), ('"+Inf"} 100.0', '"+Inf"} 102.0')
        )
        self.assertEqual(lines["commits"].text, "p50 up to 10 ms, p99 above all bounds")

    def test_wrong(self) -> None:
        """A broken promise, and an error counter that rises, are marked."""
        late = self.lines(("oldest_unsaved_seconds 2.5", "oldest_unsaved_seconds 7.5"))
        self.assertTrue(late["oldest unsaved"].is_wrong)
        extra = "playerstate_persist_thread_restarts_total 1.0\n# TYPE process_open_fds gauge"
        died = self.lines(("# TYPE process_open_fds gauge", extra))
        self.assertTrue(died["persist thread"].is_wrong)

    def test_json(self) -> None:
        """Figures that JSON has no number for are null."""
        out = StringIO()
        with redirect_stdout(out):
            top.top(
                FakeWeb(METRICS, METRICS), 1.0, True, itertools.count().__next__, lambda _: None
            )
        found = json.loads(out.getvalue())
        self.assertEqual((found["url"], found["players_online"]), ("http://server", 100))
        self.assertIsNone(found["commit_p99_seconds"])


class ScreenTests(SynchronousTestCase):
    """What a terminal shows."""

    def screens(self, *answers: str | Exception) -> Iterator[str]:
        """The screens of a server that answers so."""
        web = FakeWeb(*answers)
        ticks = itertools.count(10.0, 1.0)
        now = [10.0]

        def sleep(seconds: float) -> None:
            now[0] = next(ticks) + seconds

        first = read_metrics(METRICS, 10.0)
        made = top._screens(web, first, 1.0, lambda: now[0], sleep)
        return map(shown, made)

    def test_bar(self) -> None:
        """A share of a limit is a bar; what is wrong has a mark, not only a colour."""
        lines = [top.Line("queue", "9", 0.5), top.Line("late", "9", 2.0, True)]
        screen = shown(top.draw("http://server", lines, "", 0.0))
        self.assertIn("  queue  9  " + "█" * 10 + "░" * 10, screen)
        self.assertIn("! late   9  " + "█" * 20, screen)

    def test_gone(self) -> None:
        """A server that is gone is said to be, with the last figures; it comes back by itself."""
        screens = self.screens(WebError("cannot reach it"), METRICS)
        self.assertNotIn("no answer", next(screens))
        gone = next(screens)
        self.assertIn("no answer for 1 s: cannot reach it; trying again", gone)
        self.assertIn("100 online", gone)
        self.assertNotIn("no answer", next(screens))

    def test_live(self) -> None:
        """On a terminal it goes on until Ctrl-C."""
        drawn: list[Any] = []

        class FakeLive:
            def __init__(self, **options: Any) -> None:
                pass

            def __enter__(self) -> FakeLive:
                return self

            def __exit__(self, *exception: object) -> None:
                pass

            def update(self, screen: Any, refresh: bool) -> None:
                drawn.append(screen)

        def sleep(seconds: float) -> None:
            if len(drawn) == 2:
                raise KeyboardInterrupt

        self.patch(top, "Live", FakeLive)
        self.patch(top, "screen", lambda: (80, 24))
        top.top(FakeWeb(METRICS, METRICS), 1.0, False, itertools.count().__next__, sleep)
        self.assertEqual(len(drawn), 2)
        self.assertIn("http://server", shown(drawn[0]))
