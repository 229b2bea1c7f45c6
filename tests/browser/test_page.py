"""The page in a real browser, fed by a real server whose players come over UDP."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from playerstate.web.feed import MOST_FEEDS
from playerstate.wire.messages import Gone
from tests.browser import states
from tests.kit.browser import LOADED, PHONE, READ, WRITE, Site, Visit, visiting, wait_until
from tests.kit.processes import PATIENCE

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Serve = Callable[..., Site]
PLAYER = 7
KEPT = "() => [localStorage, sessionStorage].map((kept) => kept.getItem('playerstate.token'))"
"""Where the page keeps the token: on the device, and for the tab."""


def stored(directory: Path, column: str) -> object:
    """What the database has of the player."""
    with sqlite3.connect(directory / "players.db") as database:
        (found,) = database.execute(
            f"SELECT {column} FROM player_state WHERE session_id = ?", (PLAYER,)
        ).fetchone()
    database.close()
    return found


def use_token(visit: Visit, token: str) -> None:
    """Enter a token into the dialog that is open."""
    visit.page.fill("#token-input", token)
    visit.page.get_by_role("button", name="Use token").click()


def wait_drawn(visit: Visit, mark: str) -> None:
    """Wait until the map draws the player by this mark, in its colour and no other's."""
    colours = {name: visit.colour(name) for name in ("saved", "unsaved")}

    def is_drawn() -> bool:
        shown = visit.wait_shown(PLAYER, mark=mark)
        seen = visit.colours_at(shown["left"], shown["top"])
        return {name for name, colour in colours.items() if colour in seen} == {mark}

    wait_until(is_drawn)


def find_player(visit: Visit) -> None:
    """Have the panel show the player, and wait until it does."""
    visit.page.fill("#find-id", str(PLAYER))
    visit.page.keyboard.press("Enter")
    visit.page.get_by_text("changed", exact=False).first.wait_for()


def test_map_shows_where_udp_put_a_player(browser: Browser, serve: Serve) -> None:
    """The map draws a player at the values of the last move, and a click there picks the player."""
    site = serve()
    site.player(8).move(900.0, 900.0)
    player = site.player(PLAYER)
    player.move(412.5, 187.25)
    player.wait_applied()
    with visiting(browser, site.url) as visit:
        visit.go()
        visit.wait_shown(PLAYER, x=412.5, y=187.25)
        wait_until(lambda: visit.page.text_content('[data-tile="online"] .value') == "2")
        wait_drawn(visit, "saved")
        shown, other = visit.wait_shown(PLAYER), visit.wait_shown(8)
        assert shown["left"] < other["left"]
        assert shown["top"] > other["top"]
        assert visit.colour("saved") not in visit.colours_at(shown["left"] + 60, shown["top"])
        visit.page.click("#map", position={"x": shown["left"], "y": shown["top"]})
        assert visit.page.inner_text("#panel-name").split() == ["Player", str(PLAYER)]
        wait_until(lambda: visit.page.text_content("#field-x") == "412.5")
        assert visit.page.text_content("#field-y") == "187.25"
        visit.mind_manners()


def test_unsaved_mark_goes_after_the_commit(browser: Browser, serve: Serve) -> None:
    """A player who moved has the mark of the unsaved until that is committed."""
    site = serve("--save-within", "10")
    player = site.player(PLAYER)
    player.move(400.0, 200.0)
    with visiting(browser, site.url) as visit:
        visit.go()
        # From here on a sweep has just been made, and the next is seconds away.
        player.wait_saved()
        visit.wait_shown(PLAYER, mark="saved")
        player.move(410.0, 200.0)
        wait_drawn(visit, "unsaved")
        assert visit.page.text_content('#legend [data-kind="1"] b') == "1"
        player.wait_saved()
        wait_drawn(visit, "saved")
        assert visit.page.text_content('#legend [data-kind="1"] b') == "0"
        visit.mind_manners()


def test_edit_reaches_store_and_client(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    """Who has a token that may write changes a player in the panel; errors stand at their field."""
    shutil.copy(states.__file__, tmp_path)
    site = serve("--state", "states:Avatar", "--save-within", "1")
    player = site.player(PLAYER, state=states.Avatar)
    with visiting(browser, site.url) as visit:
        visit.go()
        find_player(visit)
        assert visit.page.locator("#panel input").count() == 0
        visit.page.get_by_role("button", name="Enter a token", exact=True).click()
        use_token(visit, WRITE)
        hp = visit.page.get_by_label("hp", exact=True)
        hp.fill("101")
        visit.page.get_by_role("button", name="Save changes").click()
        note = visit.page.locator("#field-hp-note")
        wait_until(lambda: note.text_content() == "must be a whole number from 0 to 100")
        assert hp.get_attribute("aria-invalid") == "true"
        assert hp.get_attribute("aria-describedby") == "field-hp-note"
        hp.fill("41")
        visit.page.get_by_label("alive", exact=True).uncheck()
        visit.page.get_by_role("button", name="Save changes").click()
        visit.page.locator("#panel").get_by_text("Saved: hp, alive.").wait_for()
        assert stored(tmp_path, "hp") == 41
        assert stored(tmp_path, "alive") == 0
        with urlopen(f"{site.url}players/{PLAYER}") as answer:
            state = json.load(answer)["state"]
        assert (state["hp"], state["alive"]) == (41, False)
        # The client learns it at its next JOIN.  Where the server tells clients of edits at once,
        # that is to be waited for here, without the JOIN.
        assert player.join().values[3:] == (41, False)
        visit.mind_manners(LOADED + ": the server responded with a status of 400")


def test_kick(browser: Browser, serve: Serve) -> None:
    """A kick needs a second press; then the client is told to go, and the map is empty."""
    site = serve("--save-within", "1")
    player = site.player(PLAYER)
    player.move(400.0, 200.0)
    player.wait_saved()
    with visiting(browser, site.url) as visit:
        visit.go()
        visit.page.click("#token")
        use_token(visit, WRITE)
        find_player(visit)
        visit.page.get_by_role("button", name="Kick", exact=True).click()
        assert visit.where_is(PLAYER) is not None
        visit.page.get_by_role("button", name="Kick now?").click()
        wait_until(lambda: isinstance(player.answer(), Gone))
        visit.page.get_by_text("No player is in the game.").wait_for()
        visit.page.get_by_text("Offline").wait_for()
        assert visit.where_is(PLAYER) is None
        visit.mind_manners()


def test_server_goes_and_comes_back(browser: Browser, serve: Serve) -> None:
    """The page says that the server is gone, and shows the new one without being asked to."""
    site = serve()
    with visiting(browser, site.url) as visit:
        visit.go()
        site.server.kill()
        visit.wait_state("gone")
        visit.page.get_by_text("The server is gone. Last heard of").wait_for()
        assert visit.page.text_content("#announce") == "The server is gone. Trying again."
        again = serve(port=site.port)
        player = again.player(PLAYER)
        player.move(1.0, 2.0)
        visit.wait_state("live")
        assert visit.page.text_content("#announce") == "The server is back."
        assert not visit.page.is_visible("#notice")
        visit.wait_shown(PLAYER, x=1.0, y=2.0)
        visit.mind_manners(LOADED)


def test_too_many_pages(browser: Browser, serve: Serve) -> None:
    """A page that the server does not feed says why, and is fed once there is room."""
    site = serve()
    others = [HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE) for _ in range(MOST_FEEDS)]
    for other in others:
        other.request("GET", "/feed")
        assert other.getresponse().status == 200
    with visiting(browser, site.url) as visit:
        visit.page.goto(site.url)
        visit.wait_state("refused")
        visit.page.get_by_text("8 pages are fed already").first.wait_for()
        assert visit.page.title() == "Not fed: playerstate"
        for other in others:
            assert other.sock is not None
            other.sock.close()
            other.close()
        visit.wait_state("live")
        visit.mind_manners(LOADED + ": the server responded with a status of 503")


def test_token(browser: Browser, serve: Serve) -> None:
    """Beyond loopback a token is asked for, put in no address, and kept on the device if wanted."""
    site = serve(interface="0.0.0.0")
    with visiting(browser, site.url) as visit:
        visit.page.goto(site.url)
        dialog = visit.page.get_by_role("dialog", name="Token")
        dialog.wait_for()
        use_token(visit, "x" * 24)
        dialog.get_by_text("the token is not known").wait_for()
        assert visit.page.evaluate(KEPT) == [None, None]
        use_token(visit, READ)
        visit.wait_state("live")
        assert visit.page.get_by_role("button", name="Read only").is_visible()
        assert visit.page.evaluate(KEPT) == [None, READ]
        visit.page.reload()
        visit.wait_state("live")
        visit.page.click("#token")
        visit.page.get_by_label("Remember on this device").check()
        use_token(visit, READ)
        wait_until(lambda: visit.page.evaluate(KEPT) == [READ, None])
        visit.wait_state("live")
        visit.page.click("#token")
        visit.page.get_by_role("button", name="Forget token").click()
        visit.wait_state("token")
        assert visit.page.evaluate(KEPT) == [None, None]
        assert not dialog.is_visible()
        visit.page.get_by_role("button", name="Enter a token").click()
        dialog.wait_for()
        assert visit.page.url == site.url
        assert not [url for url in visit.requests if READ in url or "x" * 24 in url]
        visit.mind_manners(LOADED + ": the server responded with a status of 401")


def test_axes_are_chosen(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    """Any two float fields may be the axes."""
    shutil.copy(states.__file__, tmp_path)
    site = serve("--state", "states:Avatar")
    player = site.player(PLAYER, state=states.Avatar)
    player.move(10.0, 20.0, 30.0, 50, True)
    player.wait_applied()
    with visiting(browser, site.url) as visit:
        visit.go()
        visit.wait_shown(PLAYER, x=10.0, y=20.0)
        visit.page.get_by_label("across").select_option("heading")
        visit.wait_shown(PLAYER, x=30.0, y=20.0)
        visit.mind_manners()


def test_table_without_axes(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    """Players of a class without two floats are shown in a table, and picked from it by key."""
    shutil.copy(states.__file__, tmp_path)
    site = serve("--state", "states:Counter")
    player = site.player(PLAYER, state=states.Counter)
    player.move(5, False)
    player.wait_applied()
    with visiting(browser, site.url) as visit:
        visit.go()
        assert not visit.page.is_visible("#map")
        row = visit.page.locator(f'tbody tr[data-id="{PLAYER}"]')
        wait_until(lambda: row.locator('[data-field="score"]').text_content() == "5")
        assert row.locator('[data-field="alive"]').text_content() == "no"
        row.get_by_role("button").focus()
        visit.page.keyboard.press("Enter")
        wait_until(lambda: visit.page.text_content("#field-score") == "5")
        visit.mind_manners()


def test_keys_move_the_map(browser: Browser, serve: Serve) -> None:
    """Keys zoom and pan; F shows all players again."""
    site = serve()
    site.player(PLAYER).move(100.0, 100.0)
    site.player(8).move(300.0, 100.0)
    with visiting(browser, site.url) as visit:
        visit.go()
        visit.wait_shown(PLAYER, x=100.0)
        visit.wait_shown(8, x=300.0)

        def apart() -> float:
            places = [visit.where_is(each) for each in (PLAYER, 8)]
            return float(places[1]["left"] - places[0]["left"])  # type: ignore[index]

        wait_until(lambda: apart() > 300)
        before = apart()
        visit.page.focus("#map")
        visit.page.keyboard.press("+")
        wait_until(lambda: apart() > 1.3 * before)
        fit = visit.page.get_by_role("button", name="Keep all players in view")
        assert fit.get_attribute("aria-pressed") == "false"
        left = visit.wait_shown(PLAYER)["left"]
        visit.page.keyboard.press("ArrowLeft")
        wait_until(lambda: visit.wait_shown(PLAYER)["left"] > left + 30)
        visit.page.keyboard.press("f")
        wait_until(lambda: abs(apart() - before) < 2)
        assert fit.get_attribute("aria-pressed") == "true"
        visit.mind_manners()


def test_find_and_keep_in_the_middle(browser: Browser, serve: Serve) -> None:
    """A wrong id is refused at its field; a player who is found can be kept in the middle."""
    site = serve()
    site.player(8).move(900.0, 900.0)
    player = site.player(PLAYER)
    player.move(100.0, 100.0)
    with visiting(browser, site.url) as visit:
        visit.go()
        visit.wait_shown(PLAYER, x=100.0)
        for wrong in ("0", "-1", "x", str(2**63)):
            visit.page.fill("#find-id", wrong)
            visit.page.keyboard.press("Enter")
            assert visit.page.inner_text("#find-error").startswith("A session id is"), wrong
            assert not visit.page.is_visible("#panel")
        find_player(visit)
        assert visit.page.inner_text("#find-error") == ""
        visit.page.get_by_role("button", name="Keep in the middle of the map").click()
        box = visit.page.locator("#map").bounding_box()
        assert box is not None
        player.move(600.0, 300.0)

        def is_in_the_middle() -> bool:
            shown = visit.wait_shown(PLAYER, x=600.0)
            beside = shown["left"] - box["width"] / 2, shown["top"] - box["height"] / 2
            return max(map(abs, beside)) < 2

        wait_until(is_in_the_middle)
        visit.page.keyboard.press("Escape")
        wait_until(lambda: not visit.page.is_visible("#panel"))
        visit.page.fill("#find-id", "9")
        visit.page.keyboard.press("Enter")
        visit.page.locator("#panel").get_by_text("there is no player 9").wait_for()
        visit.mind_manners(LOADED + ": the server responded with a status of 404")


def test_pinch_zooms(browser: Browser, serve: Serve) -> None:
    """Two fingers that part on a phone bring the map nearer."""
    site = serve()
    site.player(PLAYER).move(100.0, 100.0)
    site.player(8).move(300.0, 100.0)
    with visiting(browser, site.url, PHONE) as visit:
        visit.go()
        visit.wait_shown(8, x=300.0)
        before = visit.wait_shown(PLAYER, x=100.0)["left"]
        box = visit.page.locator("#map").bounding_box()
        assert box is not None
        middle, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        session = visit.page.context.new_cdp_session(visit.page)
        for kind, reach in (("touchStart", 30), ("touchMove", 60), ("touchMove", 90)):
            points = [{"x": middle - reach, "y": top}, {"x": middle + reach, "y": top}]
            session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        wait_until(lambda: visit.wait_shown(PLAYER)["left"] < before - 100)
        visit.mind_manners()
