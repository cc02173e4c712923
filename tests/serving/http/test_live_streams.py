"""Which change lets which live stream look up again, and whether it has to send a list."""

import pytest

from serving.http.live_streams import LiveStreams, StreamLimits
from serving.http.problems import Problem


def test_a_stream_begins_with_a_list() -> None:
    streams = LiveStreams()
    stream = streams.open("shop", "u")
    signal = stream.signal
    assert signal.consume()
    assert not signal.is_set()
    assert not signal.consume()


def test_features_signal_the_streams_of_their_users() -> None:
    streams = LiveStreams()
    opened = (streams.open("shop", "u"), streams.open("shop", "v"), streams.open("music", "u"))
    signals = [stream.signal for stream in opened]
    for signal in signals:
        signal.consume()
    streams.on_features([("shop", "u"), ("shop", "nobody")])
    assert [signal.is_set() for signal in signals] == [True, False, False]
    assert signals[0].consume()
    streams.on_features(None)
    assert [signal.consume() for signal in signals] == [True, True, True]


def test_a_change_of_the_catalogue_signals_its_domain_without_certainty() -> None:
    streams = LiveStreams()
    opened = (streams.open("shop", "u"), streams.open("music", "u"))
    shop, music = (stream.signal for stream in opened)
    for signal in (shop, music):
        signal.consume()
    streams.on_catalogue("shop")
    assert (shop.is_set(), music.is_set()) == (True, False)
    assert not shop.consume()
    streams.on_release()
    assert (shop.consume(), music.consume()) == (True, True)


def test_a_closed_stream_is_forgotten() -> None:
    streams = LiveStreams()
    first, second = streams.open("shop", "u"), streams.open("shop", "u")
    assert streams.count() == 2
    first.close()
    first.close()
    assert streams.count() == 1
    second.signal.consume()
    streams.on_release()
    assert second.signal.is_set()
    second.close()
    assert streams.count() == 0


def test_a_stream_that_never_begins_is_forgotten() -> None:
    streams = LiveStreams(StreamLimits(total=1))
    stream = streams.open("shop", "u")
    del stream
    assert streams.count() == 0
    streams.open("shop", "u")


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (StreamLimits(total=2), "max_streams"),
        (StreamLimits(per_address=2), "max_streams_per_address"),
        (StreamLimits(per_user=2), "max_streams_per_user"),
    ],
)
def test_a_limit_refuses_only_what_is_beyond_it(limits: StreamLimits, setting: str) -> None:
    streams = LiveStreams(limits)
    opened = [streams.open("shop", "u", "10.0.0.1"), streams.open("shop", "u", "10.0.0.1")]
    with pytest.raises(Problem, match=setting) as refused:
        streams.open("shop", "u", "10.0.0.1")
    assert (refused.value.status_code, refused.value.headers) == (429, {"Retry-After": "30"})
    if setting == "max_streams_per_user":
        streams.open("music", "u", "10.0.0.1").close()
    elif setting == "max_streams_per_address":
        streams.open("shop", "u", "10.0.0.2").close()
    opened.pop().close()
    opened.append(streams.open("shop", "u", "10.0.0.1"))
    assert streams.count() == 2
