"""Names of samples."""

from vqtrain.data.shards.keys import unique_keys


def test_a_name_that_is_given_is_not_given_twice():
    assert unique_keys(["a", "a-2", "a", "a"]) == ["a", "a-2", "a-3", "a-4"]
