"""Which change lets which live stream look up again, and whether it has to send a list."""

from serving.http.live_streams import LiveStreams


def test_a_stream_begins_with_a_list() -> None:
    streams = LiveStreams()
    signal = streams.open("shop", "u")
    assert signal.consume()
    assert not signal.is_set()
    assert not signal.consume()


def test_features_signal_the_streams_of_their_users() -> None:
    streams = LiveStreams()
    mine, other, elsewhere = streams.open("shop", "u"), streams.open("shop", "v"), streams.open("music", "u")
    signals = (mine, other, elsewhere)
    for signal in signals:
        signal.consume()
    streams.on_features([("shop", "u"), ("shop", "nobody")])
    assert [signal.is_set() for signal in signals] == [True, False, False]
    assert mine.consume()
    streams.on_features(None)
    assert [signal.consume() for signal in signals] == [True, True, True]


def test_a_change_of_the_catalogue_signals_its_domain_without_certainty() -> None:
    streams = LiveStreams()
    shop, music = streams.open("shop", "u"), streams.open("music", "u")
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
    streams.close("shop", "u", first)
    streams.close("shop", "u", first)
    assert streams.count() == 1
    second.consume()
    streams.on_release()
    assert second.is_set()
    streams.close("shop", "u", second)
    assert streams.count() == 0
