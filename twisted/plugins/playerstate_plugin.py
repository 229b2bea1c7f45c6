"""What Twisted finds of playerstate: the twistd plugin, and the stores by their URL's scheme."""

from twisted.application.service import ServiceMaker

from playerstate.stores import StoreFactory

playerstate = ServiceMaker(
    "playerstate",
    "playerstate.tap",
    "Keeps where every player stands, taking moves over UDP and saving them in batches.",
    "playerstate",
)

sqlite_store = StoreFactory("sqlite", "playerstate.stores.sqlite.store")
memory_store = StoreFactory("memory", "playerstate.stores.memory")
postgresql_store = StoreFactory("postgresql", "playerstate.stores.postgresql.store", "postgresql")
