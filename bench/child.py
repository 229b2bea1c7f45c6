"""One case in a process of its own: ``python -m bench.child CASE SECONDS QUICK DIRECTORY``."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from importlib import import_module

from bench.cases import CASES
from bench.children import hold, say
from bench.stage import Stage

TOO_LONG = 4
"""A case is ended after so many times its seconds, and `SPARE_SECONDS`."""
SPARE_SECONDS = 60


def main() -> None:
    """Run the reactor and the case; send the parent the progress and the outcome."""
    name, seconds, quick, directory = sys.argv[1:]
    hold(seconds=int(TOO_LONG * float(seconds) + SPARE_SECONDS))
    # The output of a rival must not be taken for a message.
    messages = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from twisted.internet import reactor

    stage = Stage(
        directory,
        quick == "quick",
        float(seconds),
        reactor,
        lambda text: say({"progress": text}, messages),
    )

    def run() -> None:
        try:
            say({"outcome": import_module(CASES[name].module).run(stage).to_json()}, messages)
        except BaseException:  # the parent must show any failure
            say({"failed": traceback.format_exc()}, messages)
        finally:
            reactor.callFromThread(reactor.stop)

    thread = threading.Thread(target=run, name="case", daemon=True)
    reactor.callWhenRunning(thread.start)
    reactor.run(installSignalHandlers=False)
    thread.join(10.0)
    messages.flush()
    os._exit(0)  # a rival's threads may never end


if __name__ == "__main__":
    main()
