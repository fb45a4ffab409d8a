"""An address of Redis, as each of the three clients that are made from it understands it."""

import asyncio
import socket

import pytest
import redis
import redis.asyncio
from channels_redis.utils import create_pool, decode_hosts

from taskapi.backends.redis import Sentinel, async_client, channel_layer_host, check_url, parse_sentinel, sync_client


def layer_pool(url):
    """The connections that a channels_redis layer makes to the address."""
    (host,) = decode_hosts([channel_layer_host(url)])
    return create_pool(host)


FULL = "sentinel://ann:se%40cret@one:1,two:2,three/mine/4"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1:7/3", {"host": "127.0.0.1", "port": 7, "db": 3}),
        ("redis://ann:se%40cret@there", {"host": "there", "username": "ann", "password": "se@cret"}),
        ("rediss://there:7/3", {"host": "there", "port": 7, "db": 3}),
        ("unix:///run/redis.sock?db=3", {"path": "/run/redis.sock", "db": 3}),
    ],
)
async def test_every_client_goes_where_the_address_says(url, expected):
    check_url(url)
    client = async_client(url)
    for pool in (sync_client(url).connection_pool, client.connection_pool, layer_pool(url)):
        assert pool.connection_kwargs.items() >= expected.items()
        is_tls = "SSL" in pool.connection_class.__name__
        assert is_tls is url.startswith("rediss")
    await client.aclose()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:7/3", FULL])
async def test_no_client_waits_for_ever_for_a_server_to_answer(url):
    sync, client = sync_client(url).connection_pool, async_client(url)
    assert sync.connection_kwargs["socket_connect_timeout"] == 1
    assert sync.connection_kwargs["socket_timeout"] == 1
    assert client.connection_pool.connection_kwargs["socket_connect_timeout"] == 1
    assert client.connection_pool.connection_kwargs["socket_timeout"] == 5
    await client.aclose()


@pytest.mark.parametrize("url", ["redis://127.0.0.1:7/3", "unix:///run/redis.sock", FULL])
def test_a_layer_does_not_listen_for_ever_to_a_server_that_is_gone(url):
    options = layer_pool(url).connection_kwargs
    assert options["socket_connect_timeout"] == 1
    assert options["health_check_interval"] == 5
    over_tcp = not url.startswith("unix")
    assert ("socket_keepalive_options" in options) == (over_tcp and hasattr(socket, "TCP_USER_TIMEOUT"))


def test_threads_share_one_client_for_an_address():
    assert sync_client("redis://127.0.0.1:7/3") is sync_client("redis://127.0.0.1:7/3")
    assert sync_client("redis://127.0.0.1:7/3") is not sync_client("redis://127.0.0.1:7/4")


async def test_each_loop_has_a_client_of_its_own():
    first, second = async_client("redis://127.0.0.1:7"), async_client("redis://127.0.0.1:7")
    assert first is not second
    await asyncio.gather(first.aclose(), second.aclose())


@pytest.mark.parametrize("url", ["redis://there", "redis://there/", "redis://there/3", "redis://there?db=3"])
def test_an_address_may_do_without_the_number_of_a_database(url):
    check_url(url)


# Sentinel


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sentinel://one/mine", Sentinel((("one", 26379),), "mine", 0, None, None)),
        ("sentinel://:secret@one:1/mine/", Sentinel((("one", 1),), "mine", 0, None, "secret")),
        (FULL, Sentinel((("one", 1), ("two", 2), ("three", 26379)), "mine", 4, "ann", "se@cret")),
        ("redis://one/0", None),
    ],
)
def test_a_sentinel_address_has_hosts_a_service_and_a_database(url, expected):
    assert parse_sentinel(url) == expected


async def test_every_client_asks_the_sentinels_for_the_master():
    client = async_client(FULL)
    for pool in (sync_client(FULL).connection_pool, client.connection_pool, layer_pool(FULL)):
        assert isinstance(pool, redis.sentinel.SentinelConnectionPool | redis.asyncio.sentinel.SentinelConnectionPool)
        assert pool.service_name == "mine"
        assert pool.connection_kwargs.items() >= {"db": 4, "username": "ann", "password": "se@cret"}.items()
        sentinels = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
        assert [(options["host"], options["port"]) for options in sentinels] == [
            ("one", 1),
            ("two", 2),
            ("three", 26379),
        ]
        # the password is for the master, not for the sentinels
        assert all(options.get("password") is None for options in sentinels)
    await client.aclose()


# Refusals


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (None, "got None"),
        (b"redis://there", "got b'redis://there'"),
        ("127.0.0.1:6379", "begins with one of redis, rediss, unix, sentinel"),
        ("http://there", "begins with one of redis, rediss, unix, sentinel"),
        ("redis://there:port", "port"),
        ("redis://there:99999999", "[Pp]ort"),
        ("redis://[::1", "IPv6"),
        ("redis://there/x", "number of a database, got 'x'"),
        ("rediss://there:7/1/2", "number of a database, got '1/2'"),
        ("redis://there/-1", "number of a database, got '-1'"),
        ("unix:///run/redis.sock?db=x", "db"),
        ("sentinel://one", "sentinel://host:port,host:port/service"),
        ("sentinel:///mine", "sentinel://host:port,host:port/service"),
        ("sentinel://one:port/mine", "port"),
        ("sentinel://one/mine/first", "number of a database, got 'first'"),
        ("sentinel://one/mine/-1", "number of a database, got '-1'"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_with_a_sentence(url, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_url(url)
