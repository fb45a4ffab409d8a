"""Redis (or Valkey) by its address, for the queue and for the channel layer."""

from taskapi.backends.redis.address import Sentinel, check_url, parse_sentinel
from taskapi.backends.redis.breaker import THREAD_PAUSE, Breaker
from taskapi.backends.redis.clients import (
    COMMAND_TIMEOUT,
    SILENCE,
    THREAD_TIMEOUT,
    address_of,
    async_client,
    channel_layer_host,
    sync_client,
)
from taskapi.backends.redis.primary import OUTAGE, Demoted, follow_primary, is_demoted

__all__ = [
    "COMMAND_TIMEOUT",
    "OUTAGE",
    "SILENCE",
    "THREAD_PAUSE",
    "THREAD_TIMEOUT",
    "Breaker",
    "Demoted",
    "Sentinel",
    "address_of",
    "async_client",
    "channel_layer_host",
    "check_url",
    "follow_primary",
    "is_demoted",
    "parse_sentinel",
    "sync_client",
]
