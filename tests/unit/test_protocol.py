"""Every text is parsed or refused, numbers grow, and a representation has the keys of the contract."""

import json
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskapi import protocol
from taskapi.exceptions import ProtocolError
from taskapi.models import TaskInfo
from taskapi.protocol import Cancel, Ping, Run, Subscribe, Unsubscribe

RUN = UUID("12345678-1234-5678-1234-567812345678")

# Any JSON that Python can write, with lone surrogates and with ints longer than Python would read.
texts = st.text(st.characters())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
almost_frames = st.fixed_dictionaries(
    {"type": st.sampled_from(["run", "subscribe", "unsubscribe", "ping", "cancel"]) | json_values},
    optional={
        "ref": texts | json_values,
        "task": texts | json_values,
        "inputs": json_values,
        "uuid": st.uuids().map(str) | json_values,
        "after": st.integers(-1, 5) | json_values,
        "idempotency_key": texts | json_values,
    },
)


def refusal(text):
    with pytest.raises(ProtocolError) as caught:
        protocol.parse(text)
    return caught.value


def frame(**fields):
    return json.dumps(fields)


# Parsing


def read(text):
    """The frame, or the refusal."""
    try:
        return protocol.parse(text)
    except ProtocolError as error:
        return error


@settings(deadline=None)
@given(text=texts | json_values.map(json.dumps) | almost_frames.map(json.dumps))
def test_any_text_is_a_frame_or_is_refused_with_a_sentence(text):
    found = read(text)
    assert found.ref is None or len(found.ref) <= 64
    if isinstance(found, ProtocolError):
        assert found.code in {"invalid_json", "invalid_frame", "unknown_type"}
        assert found.detail.endswith((".", ")"))
        assert protocol.encode(found.detail).encode()  # the sentence can be sent
    else:
        assert isinstance(found, Run | Subscribe | Unsubscribe | Cancel | Ping)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (frame(type="run", task="sum"), Run(None, "sum", {})),
        (frame(type="run", task="sum", inputs=None), Run(None, "sum", None)),
        (frame(type="run", ref=None, task="sum", idempotency_key=None), Run(None, "sum", {})),
        (
            frame(type="run", ref="r", task="t" * 255, inputs={"a": 1}, idempotency_key="k" * 255, after=2),
            Run("r", "t" * 255, {"a": 1}, "k" * 255, 2),
        ),
        (frame(type="subscribe", ref="r" * 64, uuid=str(RUN), after=3), Subscribe("r" * 64, RUN, 3)),
        (frame(type="subscribe", uuid=RUN.hex), Subscribe(None, RUN, 0)),
        (frame(type="unsubscribe", ref="", uuid=str(RUN)), Unsubscribe("", RUN)),
        (frame(type="ping", ref="r", more="is ignored"), Ping("r")),
    ],
)
def test_a_frame_is_read(text, expected):
    assert protocol.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "code", "ref", "word"),
    [
        (None, "invalid_json", None, "binary"),
        ("", "invalid_json", None, "not JSON"),
        ("{", "invalid_json", None, "not JSON"),
        ('{"type": NaN}', "invalid_json", None, "NaN"),
        ('{"type": -Infinity}', "invalid_json", None, "Infinity"),
        ("[" * 100_000, "invalid_json", None, "deep"),
        ("1" * 5_000, "invalid_json", None, "not JSON"),
        ("[]", "invalid_frame", None, "object"),
        ("{}", "invalid_frame", None, "`type`"),
        (frame(type=1, ref="r"), "invalid_frame", "r", "`type`"),
        (frame(type="run", ref="r" * 65, task="t"), "invalid_frame", None, "`ref`"),
        (frame(type="run", ref=7, task="t"), "invalid_frame", None, "`ref`"),
        (frame(type="fly", ref="r"), "unknown_type", "r", "'fly'"),
        (frame(type="x" * 10_000, ref="r"), "unknown_type", "r", "…"),
        (frame(type="run", ref="r"), "invalid_frame", "r", "`task`"),
        (frame(type="run", ref="r", task=""), "invalid_frame", "r", "`task`"),
        (frame(type="run", ref="r", task="t" * 256), "invalid_frame", "r", "`task`"),
        (frame(type="run", ref="r", task="t", idempotency_key=""), "invalid_frame", "r", "`idempotency_key`"),
        (frame(type="run", ref="r", task="t", idempotency_key="k" * 256), "invalid_frame", "r", "`idempotency_key`"),
        (frame(type="run", ref="r", task="t", after=-1), "invalid_frame", "r", "`after`"),
        (frame(type="subscribe", ref="r"), "invalid_frame", "r", "`uuid`"),
        (frame(type="subscribe", ref="r", uuid="seven"), "invalid_frame", "r", "`uuid`"),
        (frame(type="subscribe", ref="r", uuid=7), "invalid_frame", "r", "`uuid`"),
        (frame(type="subscribe", ref="r", uuid=str(RUN), after=1.0), "invalid_frame", "r", "`after`"),
        (frame(type="subscribe", ref="r", uuid=str(RUN), after=True), "invalid_frame", "r", "`after`"),
        (frame(type="subscribe", ref="r", uuid=str(RUN), after=2**53), "invalid_frame", "r", "`after`"),
        (frame(type="unsubscribe", ref="r", uuid=None), "invalid_frame", "r", "`uuid`"),
    ],
)
def test_what_is_no_frame_is_refused_by_name(text, code, ref, word):
    error = refusal(text)
    assert (error.code, error.ref) == (code, ref)
    assert word in error.detail


def test_an_unknown_type_is_told_the_known_ones():
    assert refusal(frame(type="fly")).detail.endswith("Expected one of: run, subscribe, unsubscribe, cancel, ping.")


def test_a_sentence_does_not_grow_with_what_it_is_about():
    assert len(refusal(frame(type="x" * 10_000)).detail) < 200


# Encoding


@settings(deadline=None)
@given(value=st.recursive(st.none() | st.integers(-(2**53), 2**53) | texts, lambda inner: st.lists(inner, max_size=3)))
def test_whatever_is_encoded_can_be_sent_and_read_back(value):
    text = protocol.encode(value)
    assert json.loads(text.encode().decode()) == value


def test_text_travels_as_it_is_and_a_lone_surrogate_as_its_escape():
    assert protocol.encode({"a": ["é\u2028", 1]}) == '{"a":["é\u2028",1]}'
    assert protocol.encode("\ud83d") == '"\\ud83d"'


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_not_json_is_not_encoded(number):
    with pytest.raises(ValueError, match="JSON"):
        protocol.encode([number])


def nested(depth, around=lambda inner: [inner]):
    value = 1
    for _ in range(depth):
        value = around(value)
    return value


@pytest.mark.parametrize("around", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: [1, {"b": inner}]])
def test_a_value_is_too_deep_past_the_limit_and_not_at_it(around):
    levels = 2 if isinstance(around(1), list) and len(around(1)) == 2 else 1
    assert not protocol.is_too_deep(nested(protocol.MAX_DEPTH // levels, around))
    assert protocol.is_too_deep(nested(protocol.MAX_DEPTH // levels + 1, around))


# Numbers


def test_an_attempts_numbers_are_past_all_of_the_one_before():
    assert protocol.first_seq(1) + protocol.SEQ_SPAN == protocol.first_seq(2)
    # 2,000 reports a second, with one message each, for an hour
    assert 2_000 * 3_600 * (protocol.SEQ_STATE + 1) < protocol.SEQ_SPAN
    # JavaScript reads the numbers of a million attempts exactly
    assert protocol.first_seq(1_000_000) < protocol.SAFE_INTEGER


def test_the_parts_of_a_report_have_numbers_of_their_own_after_its_messages():
    last = 10 + 3 + protocol.SEQ_STATE  # of a report of three messages after number 10
    parts = [last + part for part in (protocol.SEQ_STATUS, protocol.SEQ_TARGET, protocol.SEQ_PROGRESS)]
    assert [*parts, last + protocol.SEQ_FINISHED] == [14, 15, 16, 17]


# Representation

KEYS = [
    "uuid", "task", "status", "progress", "target", "inputs", "outputs", "messages", "message_count", "error",
    "attempt", "seq", "cancel_requested", "created", "started", "finished",
]  # fmt: skip


def test_a_representation_has_the_keys_of_the_contract():
    info = TaskInfo(task="sum")
    assert list(protocol.represent(info, [])) == KEYS
    assert list(protocol.represent(info)) == [key for key in KEYS if key != "messages"]


def test_a_representation_is_json():
    info = TaskInfo(uuid=RUN, task="sum", inputs={"a": [1]}, created=datetime(2026, 1, 2, tzinfo=UTC), seq=7)
    rep = protocol.represent(info, ("first", None))
    assert json.loads(protocol.encode(rep)) == rep | {"messages": ["first", None], "uuid": str(RUN)}
    assert (rep["status"], rep["created"], rep["finished"]) == ("pending", "2026-01-02T00:00:00Z", None)


def test_a_naive_time_is_of_the_zone_of_the_process():
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    naive = moment.astimezone().replace(tzinfo=None)  # as with USE_TZ = False
    assert protocol.timestamp(naive) == "2026-01-02T03:04:05.000006Z"


def test_a_reply_has_a_ref_where_the_frame_had_one():
    assert protocol.reply("pong", "r") == {"type": "pong", "ref": "r"}
    assert protocol.reply("pong", None) == {"type": "pong"}
    assert protocol.reply("unsubscribed", "", uuid="u") == {"type": "unsubscribed", "ref": "", "uuid": "u"}


def test_an_event_is_about_its_run_and_carries_its_own_number():
    uuid = uuid4()
    event = protocol.progress_event(uuid, attempt=2, seq=5, progress=None, target=3)
    assert event.seq == 5
    assert json.loads(event.text) == {
        "type": "progress", "uuid": str(uuid), "attempt": 2, "seq": 5, "progress": None, "target": 3
    }  # fmt: skip
