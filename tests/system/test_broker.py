from stream.admin import partitions_of


def test_topics_are_there(broker, fresh_topic):
    assert partitions_of(broker.bootstrap, None, "events") == 4
    assert partitions_of(broker.bootstrap, None, fresh_topic(partitions=3)) == 3
