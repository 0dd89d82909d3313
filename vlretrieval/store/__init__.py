"""Where studies and their vectors are kept."""

from vlretrieval.store.catalogue import Catalogue, Held
from vlretrieval.store.database import folder_of
from vlretrieval.store.memory import Ranking
from vlretrieval.store.reading import EXACT_UP_TO
from vlretrieval.store.schema import StoreInfo
from vlretrieval.store.store import Removed, Store

__all__ = ["EXACT_UP_TO", "Catalogue", "Held", "Ranking", "Removed", "Store", "StoreInfo", "folder_of"]
