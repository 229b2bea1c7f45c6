"""Move playerstate's modules and tests into folders: run in a checkout."""
import re, subprocess, sys, os
from pathlib import Path

ROOT = Path.cwd()
MODULES = {
    "building": "state.building", "salvage": "players.salvage",
    "checks": "state.checks", "schema": "state.schema", "layout": "state.layout", "state": "state.default",
    "table": "live.table", "journal": "live.journal", "recovery": "live.recovery",
    "ring": "saving.ring", "pace": "saving.pace", "persister": "saving.persister",
    "trouble": "saving.trouble", "outbox": "saving.outbox",
    "service": "players.service", "leaves": "players.leaves", "loads": "players.loads",
    "messages": "wire.messages", "deltas": "wire.deltas",
    "gateway": "conversations.gateway", "conversation": "conversations.conversation",
    "receipts": "conversations.receipts",
    "steady": "clock",
    "stores.sqlite": "stores.sqlite.store", "stores.sqlite_browser": "stores.sqlite.browser",
    "stores.sqlite_files": "stores.sqlite.files", "stores.sqlite_format": "stores.sqlite.format",
    "stores.sqlite_watch": "stores.sqlite.watch", "stores.sqlite_writer": "stores.sqlite.writer",
    "stores.lockfile": "stores.sqlite.lockfile", "stores.refused": "stores.sqlite.refused",
}
TESTS = {
    "test_checks": "unit/state/test_checks", "test_schema": "unit/state/test_schema", "test_layout": "unit/state/test_layout",
    "test_table": "unit/live/test_table", "test_journal": "unit/live/test_journal",
    "test_ring": "unit/saving/test_ring", "test_pace": "unit/saving/test_pace", "test_persister": "unit/saving/test_persister",
    "test_outbox": "unit/saving/test_outbox",
    "test_service": "unit/players/test_service", "test_loads": "unit/players/test_loads", "test_waiting": "unit/players/test_waiting",
    "test_messages": "unit/wire/test_messages", "test_deltas": "unit/wire/test_deltas",
    "test_gateway": "unit/conversations/test_gateway", "test_batches": "unit/conversations/test_batches",
    "test_fuzz": "unit/conversations/test_fuzz", "fuzz": "proof/fuzz", "fuzz_netcode": "proof/fuzz_netcode",
    "test_plain": "unit/transports/test_plain", "test_udp": "unit/transports/test_udp", "test_recvmmsg": "unit/transports/test_recvmmsg",
    "test_strangers": "unit/transports/test_strangers", "test_transports": "unit/transports/test_transports",
    "test_netcode_client": "unit/transports/netcode/test_client", "test_netcode_network": "unit/transports/netcode/test_network",
    "test_netcode_packets": "unit/transports/netcode/test_packets", "test_netcode_server": "unit/transports/netcode/test_server",
    "test_netcode_service": "unit/transports/netcode/test_service", "test_netcode_tokens": "unit/transports/netcode/test_tokens",
    "test_netcode_vectors": "unit/transports/netcode/test_vectors",
    "test_stores": "unit/stores/test_stores", "test_sqlite": "unit/stores/sqlite/test_store", "test_sqlite_format": "unit/stores/sqlite/test_format",
    "test_lockfile": "unit/stores/sqlite/test_lockfile", "test_refused": "unit/stores/sqlite/test_refused",
    "test_client": "unit/client/test_core", "test_player_client": "unit/client/test_player",
    "test_cli": "unit/cli/test_cli",
    "test_tap": "unit/test_tap", "test_testing": "unit/test_testing", "test_tokens": "unit/test_tokens", "test_ledger": "unit/test_ledger",
    "test_steady": "unit/test_clock", "test_printable": "unit/test_printable", "test_rooms": "unit/test_rooms",
    "test_process": "process/test_server", "test_client_process": "process/test_client", "test_netcode_process": "process/test_netcode",
    "test_plugins": "process/test_plugins", "test_clock": "process/test_clock", "test_faults": "process/test_faults",
    "test_threads": "process/test_threads", "test_documents": "process/test_documents", "test_bench": "process/test_bench",
    "test_kill": "proof/test_kill", "test_power_cut": "proof/test_power_cut", "test_simulation": "proof/test_simulation",
    "test_soak": "proof/test_soak", "test_interleaving": "proof/test_interleaving", "soak": "proof/soak", "interleaving": "proof/interleaving",
    "simulation": "proof/simulation", "crash_disk": "proof/crash_disk",
    "crash_live": "kit/crash_live", "crash_load": "kit/crash_load", "databases": "kit/databases", "netcode": "kit/netcode",
    "players": "kit/players", "playing": "kit/playing", "processes": "kit/processes", "support": "kit/support", "wire": "kit/wire", "arguments": "kit/arguments",
    "test_dates": "unit/players/test_dates", "test_locks": "unit/stores/sqlite/test_locks",
    "test_migrations": "process/test_migrations", "test_stall": "process/test_stall",
}

def run(*a):
    subprocess.run(a, check=True)

def mv(old, new):
    new.parent.mkdir(parents=True, exist_ok=True)
    run("git", "mv", str(old), str(new))

pkg = ROOT / "playerstate"
def path_of(mod): return pkg / (mod.replace(".", "/") + ".py")
for old, new in MODULES.items():
    if not path_of(old).exists():
        print("no", old); continue
    if new.startswith(old + "."):       # state -> state.default, stores.sqlite -> stores.sqlite.store
        mv(path_of(old), path_of(old + "__tmp"))
        mv(path_of(old + "__tmp"), path_of(new))
    else:
        mv(path_of(old), path_of(new))
DOC = {
    "state": "A state class, compiled: its fields, their checks, the packed row, and the default class.",
    "live": "The live table: the rows of all who are online, the file they lie in, and recovery from it.",
    "saving": "Changed rows on their way to the store: the ring, the persist thread's work, and the outbox.",
    "players": "The service: join, move, leave and flush; start and stop.",
    "wire": "Messages and deltas as bytes; no sockets.",
    "conversations": "What players say and are told: conversations, moves, joins, receipts.",
    "stores/sqlite": "The SQLite store.",
}
for d, doc in DOC.items():
    p = pkg / d / "__init__.py"
    if not p.exists():
        p.write_text(f'"""{doc}"""\n'); run("git", "add", str(p))

tests = ROOT / "tests"
for old, new in TESTS.items():
    o = tests / old if (tests / old).is_dir() else tests / (old + ".py")
    if not o.exists():
        print("no test", old); continue
    n = tests / new if o.is_dir() else tests / (new + ".py")
    mv(o, n)
for d in sorted({p.parent for p in tests.rglob("*.py")}):
    while d != tests:
        p = d / "__init__.py"
        if not p.exists():
            p.write_text(""); run("git", "add", str(p))
        d = d.parent

names = sorted(MODULES, key=len, reverse=True)
mod_re = re.compile(r"\bplayerstate\.(" + "|".join(map(re.escape, names)) + r")\b(?!\.live|/|:PlayerState)")
from_re = re.compile(r"\bfrom playerstate(?:\.(stores))? import (" + "|".join(sorted({n.split('.')[-1] for n in names}, key=len, reverse=True)) + r")( as \w+)?$", re.M)
test_re = re.compile(r"\btests([./])(" + "|".join(map(re.escape, sorted(TESTS, key=len, reverse=True))) + r")\b")
def sub_from(m):
    old = (m[1] + "." if m[1] else "") + m[2]
    if old not in MODULES: return m[0]
    new = MODULES[old]; parent, _, leaf = new.rpartition(".")
    pre = "playerstate" + ("." + parent if parent else "")
    return f"from {pre} import {leaf}{m[3] or (' as ' + m[2] if leaf != m[2] else '')}"
def sub_test(m):
    return "tests" + m[1] + TESTS[m[2]].replace("/", m[1])
files = subprocess.run(["git", "ls-files"], capture_output=True, text=True).stdout.split()
for f in files:
    p = ROOT / f
    if p.suffix not in (".py", ".md", ".toml", ".ini", "") or f == "CHANGELOG.md" and False or not p.is_file(): continue
    try: s = p.read_text()
    except UnicodeDecodeError: continue
    t = mod_re.sub(lambda m: "playerstate." + MODULES[m[1]], s)
    t = from_re.sub(sub_from, t)
    def split_stores(m):
        names = [n.strip() for n in m[1].split(",")]
        moved = [n for n in names if "stores." + n in MODULES]
        if not moved: return m[0]
        kept = [n for n in names if n not in moved]
        lines = [f"from playerstate.stores import {', '.join(kept)}"] if kept else []
        for n in moved:
            parent, _, leaf = MODULES["stores." + n].rpartition(".")
            lines.append(f"from playerstate.{parent} import {leaf} as {n}")
        return "\n".join(lines)
    t = re.sub(r"^from playerstate\.stores import ([\w, ]+)$", split_stores, t, flags=re.M)
    t = test_re.sub(sub_test, t)
    t = t.replace("playerstate.state:PlayerState", "playerstate:PlayerState")
    if f.startswith("tests/") and p.suffix == ".py":
        up = len(Path(f).parts) - 1   # parents to root
        t = re.sub(r"Path\(__file__\)\.parent\.parent\.parent / \"shared\"", f"Path(__file__).parents[{up+1}] / \"shared\"", t)
        t = re.sub(r"Path\(__file__\)\.parents\[2\] / \"shared\"", f"Path(__file__).parents[{up+1}] / \"shared\"", t)
        t = re.sub(r"Path\(__file__\)\.resolve\(\)\.parent\.parent$", f"Path(__file__).resolve().parents[{up}]", t, flags=re.M)
    if t != s: p.write_text(t)
