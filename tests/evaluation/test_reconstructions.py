"""The names of the files of reconstructions."""

from vqtrain.evaluation.reconstructions import file_name


def test_a_key_names_a_file_inside_the_folder_and_no_other_one() -> None:
    assert file_name("cats/001", ()) == "cats/001"
    assert file_name("../../etc/passwd", ()) == "etc/passwd"
    assert file_name("/etc/x", ()) == "etc/x"
    assert file_name("..", ()) == "picture"
    assert file_name("a", {"a.png", "a-2.png"}) == "a-3"
