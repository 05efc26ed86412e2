"""The cache of films: decoded and resized once, then shared by every trial of a node."""

from cxr_core.data.cache.build import build_cache
from cxr_core.data.cache.folder import cache_facts, cache_root, open_cache, unreadable_films

__all__ = ["build_cache", "cache_facts", "cache_root", "open_cache", "unreadable_films"]
