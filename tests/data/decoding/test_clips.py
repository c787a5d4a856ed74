"""Which frames of a file make a clip, and how they look. A frame's gray level is its number."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain.data.decoding.clips import ClipTransform
from vqtrain.data.decoding.images import ImageTransform
from vqtrain.errors import BadSampleError

# Levels that no encoder mistakes for each other.
STEP = 12
CLIP = ClipTransform(
    image_size=[24, 32],
    channels=3,
    crop="resize",
    flip=False,
    range=None,
    background="white",
    frames=4,
    fps=None,
    stride=1,
)


def levels(count: int) -> list[int]:
    return [20 + STEP * number for number in range(count)]


def numbers(clip: object) -> list[int]:
    """Tell the frames of a clip of flat frames by their level."""
    found = clip.float().mean(dim=(0, 2, 3))
    assert clip.float().std(dim=(0, 2, 3)).max() < 2
    return [round((level - 20) / STEP) for level in found.tolist()]


def draws(transform: ClipTransform, encoded: bytes, count: int = 40) -> list[list[int]]:
    generators = map(np.random.default_rng, range(count))
    return [numbers(transform.decode(encoded, generator)) for generator in generators]


@pytest.mark.parametrize(
    ("form", "codec", "options"),
    [
        ("mp4", "libx264", {}),  # with frames that refer to later ones
        ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov", "x264-params": "open-gop=1"}),
        ("webm", "libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
        ("matroska", "libx264", {}),
        ("avi", "mpeg4", {"bf": "2"}),
        ("gif", "gif", {}),
    ],
)
def test_each_start_gives_the_frames_that_follow_it(encode_video, form, codec, options) -> None:
    video = encode_video(levels(13), form, codec, options=options)
    found = draws(CLIP, video, 60)
    assert {clip[0] for clip in found} == set(range(10))
    assert all(clip == list(range(clip[0], clip[0] + 4)) for clip in found)
    assert numbers(CLIP.decode(video, None)) == [4, 5, 6, 7]
    assert numbers(CLIP.decode_whole(video)) == list(range(13))


def test_stride_takes_every_other_frame(encode_video) -> None:
    video, transform = encode_video(levels(9)), replace(CLIP, stride=2)
    assert {tuple(clip) for clip in draws(transform, video)} == {
        *((0, 2, 4, 6), (1, 3, 5, 7), (2, 4, 6, 8))
    }
    assert numbers(transform.decode_whole(video)) == [0, 2, 4, 6, 8]


def test_fps_takes_what_is_shown_at_regular_times(encode_video) -> None:
    # Frame 0 is shown until 300 ms, frame 2 at 400 ms for 10 ms alone; the header says 10 fps.
    video = encode_video(levels(7), times=[0, 300, 400, 410, 800, 900, 1000], rate=10)
    at_10 = replace(CLIP, fps=10.0)
    assert numbers(at_10.decode_whole(video)) == [0, 0, 0, 1, 2, 3, 3, 3, 4, 5, 6]
    found = {tuple(clip) for clip in draws(at_10, video, 80)}
    # From 0, 300, 400 and 410 ms on; after 800 there are but 300 ms.
    assert found == {(0, 0, 0, 1), (1, 2, 3, 3), (2, 3, 3, 3), (3, 3, 3, 3)}
    assert numbers(replace(CLIP, fps=2.5, frames=3).decode_whole(video)) == [0, 2, 4]


def test_a_rate_of_the_file_itself_takes_each_frame_once_though_times_are_rounded(
    encode_video,
) -> None:
    # A webm has ms: at 30 fps 0, 33, 67, 100.
    options = {"cpu-used": "8", "deadline": "realtime"}
    video = encode_video(levels(13), "webm", "libvpx-vp9", rate=30, options=options)
    found = draws(replace(CLIP, fps=30.0), video, 60)
    assert {clip[0] for clip in found} == set(range(10))
    assert all(clip == list(range(clip[0], clip[0] + 4)) for clip in found)
    assert numbers(replace(CLIP, fps=15.0).decode_whole(video)) == [0, 2, 4, 6, 8, 10, 12]
    # An avi of 10 fps counts in tenths of a second.
    video = encode_video(levels(5), "avi", "mpeg4")
    assert numbers(replace(CLIP, fps=10.0).decode_whole(video)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("crop", ["resize", "random_resized", "adm", "ldm", "native"])
def test_all_frames_are_cropped_as_an_image_is(encode_video, crop) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(noise).resize((60, 40)))
    video = encode_video(np.stack([picture] * 5), codec="libx264rgb", options={"crf": "0"})
    transform = replace(CLIP, image_size=16, crop=crop, flip=True)
    image = ImageTransform(
        image_size=16, channels=3, crop=crop, flip=True, range=None, background="white"
    )
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    for seed in range(4):
        generator = np.random.default_rng(seed)
        generator.integers(2)  # the start, of two
        expected = image.decode(file.getvalue(), generator)
        clip = transform.decode(video, np.random.default_rng(seed))
        assert clip.shape == (3, 4, 16, 16)
        assert clip.stride(0) == 1  # channels last in memory
        assert all(torch.equal(frame, expected) for frame in clip.unbind(1))


def test_pixels_are_those_that_were_encoded(encode_video) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3), dtype=np.uint8)
    video = encode_video(colors, codec="libx264rgb", options={"crf": "0"})
    clip = CLIP.decode(video, None)
    assert np.array_equal(clip.permute(1, 2, 3, 0).numpy(), colors[0:4])
    gray = replace(CLIP, channels=1).decode(video, None)
    luma = colors[0:4] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[0].numpy() - luma).max() < 2


def test_a_video_that_is_stored_turned_is_upright(encode_video) -> None:
    frame = np.zeros((24, 32, 3), dtype=np.uint8)
    frame[:12, :16] = 255  # bright at the top left, as stored
    video = encode_video(np.stack([frame] * 4), rotation=90)  # counterclockwise
    clip = CLIP.decode_whole(video)
    assert clip.shape == (3, 4, 32, 24)
    assert clip[:, :, 18:, :10].min() > 200  # at the bottom left
    assert clip[:, :, :14].max() < 60


def test_a_title_that_is_no_text_is_no_fault(encode_video) -> None:
    video = encode_video(levels(4))
    assert b"Lavf" in video  # what wrote it
    assert numbers(CLIP.decode(video.replace(b"Lavf", b"L\xe4vf"), None)) == [0, 1, 2, 3]


def test_transparent_parts_of_a_gif_are_of_the_background() -> None:
    picture = Image.new("RGBA", (32, 24), (0, 0, 255, 255))
    picture.paste((0, 0, 0, 0), (16, 0, 32, 24))
    file = io.BytesIO()
    picture.save(file, "GIF")
    clip = replace(CLIP, background="red").decode_whole(file.getvalue())
    assert clip.shape == (3, 1, 24, 32)
    assert clip[:, 0, 0, [0, 31]].T.tolist() == [[0, 0, 255], [255, 0, 0]]


def tar_of(frames: list[bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number, content in enumerate(frames):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def png(level: int, size: tuple[int, int] = (32, 24)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(file, "PNG")
    return file.getvalue()


def test_frames_that_are_images_are_read_where_they_are_wanted() -> None:
    frames = [png(level) for level in levels(8)]
    frames[0] = frames[7] = b"damaged"
    stored = tar_of(frames)
    # They have no times: a rate takes them as they are.
    for transform in (replace(CLIP, frames=6), replace(CLIP, frames=6, fps=5.0)):
        assert numbers(transform.decode(stored, None)) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(BadSampleError, match=r"^frame 0 of 8 no JPEG, PNG"):
        CLIP.decode_whole(stored)
    with pytest.raises(BadSampleError, match="several sizes: 32 x 24 and 16 x 24 px"):
        CLIP.decode(tar_of([png(0), png(0), png(0, (16, 24)), png(0)]), None)


def test_a_still_image_is_a_clip_of_one_frame() -> None:
    still = CLIP.sized((1, 12, 16))
    assert still.sample_size == (1, 12, 16)
    for kind in ("PNG", "JPEG", "BMP", "TIFF"):
        file = io.BytesIO()
        Image.new("RGB", (32, 24), (50, 50, 50)).save(file, kind)
        clip = still.decode(file.getvalue(), np.random.default_rng(0))
        assert clip.shape == (3, 1, 12, 16)
        assert (clip == 50).all()
    with pytest.raises(BadSampleError, match=r"^it is too short: it has 1 frame, a clip needs 4$"):
        CLIP.decode(png(50), None)


def cut(video: bytes) -> bytes:
    return video[: len(video) * 2 // 3]


def flipped(video: bytes) -> bytes:
    """Damage the pixels, but neither the headers nor the times."""
    damaged = bytearray(video)
    begin = video.index(b"mdat") + 100
    for place in range(begin, video.index(b"moov") - 100, 40):
        damaged[place] ^= 0xFF
    return bytes(damaged)


@pytest.fixture(scope="module")
def faults(encode_video) -> Callable[[str], bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), dtype=np.uint8)
    whole = encode_video(noise, options={"crf": "10"})
    webm = encode_video(
        noise, "webm", "libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}
    )
    moov = whole.index(b"moov") - 4
    # With what says where the frames are at the beginning, as files for the web have it.
    fast = bytearray(whole[:32] + whole[moov:] + whole[32:moov])
    place = fast.index(b"stco") + 12
    count = int.from_bytes(fast[place - 4 : place])
    for at in range(place, place + 4 * count, 4):
        moved = int.from_bytes(fast[at : at + 4]) + len(whole) - moov
        fast[at : at + 4] = moved.to_bytes(4)
    fast = bytes(fast)
    assert numbers_of_frames(fast) == 16
    return {
        "empty": b"",
        "text": b"not a video\n" * 100,
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n",
        "cut mp4": cut(whole),
        "cut mp4 for the web": cut(fast),
        "cut webm": cut(webm),
        "damaged": flipped(whole),
        "sound": sound(),
        "out of order": encode_video(
            noise, "avi", key_every=16, options={"x264-params": "bframes=2:b-adapt=0:scenecut=0"}
        ),
    }


def numbers_of_frames(video: bytes) -> int:
    return CLIP.decode_whole(video).shape[1]


def sound() -> bytes:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        track = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(track.encode(frame))
        container.mux(track.encode())
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty", "the file is empty"),
        ("text", "cannot be read as a video: Invalid data found when processing input"),
        ("playlist", "cannot be read as a video: Invalid data found when processing input"),
        ("cut mp4", "it is cut off: [0-9,]+ of [0-9,]+ bytes are there"),
        ("cut mp4 for the web", "it is cut off: [0-9,]+ of [0-9,]+ bytes are there"),
        ("cut webm", "it is cut off: [0-9,]+ of [0-9,]+ bytes are there"),
        ("damaged", r"frame \d+ of 16 cannot be decoded.*"),
        ("sound", "it has no video track"),
        # An avi has no times, and H.264 stores frames in another order.
        ("out of order", r"(its frames are not in the .* times|frame \d+ of 16 cannot .*)"),
    ],
)
def test_faults_are_said_in_a_line(faults, name, reason) -> None:
    for decode in (lambda data: CLIP.decode(data, None), CLIP.decode_whole):
        with pytest.raises(BadSampleError, match=f"^{reason}$"):
            decode(faults[name])


def test_too_short_files_are_neither_padded_nor_repeated(encode_video) -> None:
    video = encode_video(levels(7))
    assert numbers(replace(CLIP, frames=7).decode(video, None)) == list(range(7))
    with pytest.raises(BadSampleError, match=r"^it is too short: it has 7 frames, a clip needs 8$"):
        replace(CLIP, frames=8).decode(video, None)
    with pytest.raises(BadSampleError, match=r"needs 10: 4 at stride 3$"):
        replace(CLIP, stride=3).decode(video, None)
    assert numbers(replace(CLIP, frames=7, fps=10.0).decode(video, None)) == list(range(7))
    reason = "it lasts 0.7 s, and 8 frames at 10 a second need more than 0.7 s"
    with pytest.raises(BadSampleError, match=f"^it is too short: {reason}$"):
        replace(CLIP, frames=8, fps=10.0).decode(video, None)
