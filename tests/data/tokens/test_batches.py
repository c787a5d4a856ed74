"""Batches with what lies beside the pictures."""

import numpy as np
import pytest

from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.scan import scan_tar
from vqtrain.data.tokens.batches import TokenBatches


def batches_of(index, plan, counts):
    return TokenBatches(index, counts=counts, transform=plan.settings.transform, batch_size=2)


def test_a_short_batch_is_filled_with_its_last_image_masked(index_of, plan_of, pixels):
    index = index_of()
    batch = batches_of(index, plan_of(index), [2, 1])[1]
    np.testing.assert_array_equal(batch.samples[1], pixels[2].transpose(2, 0, 1))
    assert batch.mask.tolist() == [True, False]
    assert batch.fields == [(("txt", b"caption 2"),)]


def test_an_array_beside_a_picture_does_not_take_the_place_of_the_ids(
    tmp_path, encode, write_tar, plan_of, index_of, pixels
):
    members = {"a.png": encode(pixels[0]), "a.npy": b"features", "a.cls": b"3"}
    index = scan_tar(write_tar(tmp_path / "a.tar", members))
    batch = batches_of(index, plan_of(index_of()), [1])[0]
    assert batch.fields == [(("cls", b"3"), ("2.npy", b"features"))]


def test_a_second_field_of_a_name_is_listed_and_its_sample_kept(
    tmp_path, encode, write_tar, plan_of, index_of, pixels
):
    members = {"a.png": encode(pixels[0]), "a.txt": b"one", "a.TXT": b"two"}
    members |= {"b.png": encode(pixels[1]), "c.png": encode(pixels[2])}
    index = scan_tar(write_tar(tmp_path / "a.tar", members))
    batches = batches_of(index, plan_of(index_of()), [2, 1])
    assert batches[0].mask.all()
    (fault,) = batches[0].faults
    assert (fault.key, fault.reason) == ("a", "it has a second field txt, which is left out")
    assert batches[1].faults == []


def test_a_sample_whose_field_cannot_be_read_is_left_out(
    tmp_path, encode, plan_of, index_of, pixels
):
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.png").write_bytes(encode(pixels[number]))
        (folder / f"{number}.txt").write_text("a caption")
    index = open_samples(str(folder), role="training")
    batches = batches_of(index, plan_of(index_of()), [2])
    (folder / "1.txt").write_text("cut")
    batch = batches[0]
    assert batch.mask.tolist() == [True, False]
    assert [fault.key for fault in batch.faults] == ["1"]
    with pytest.raises(IndexError):
        batches[1]
