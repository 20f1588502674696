"""Clips that cannot be used: one line that names the utterance and the reason."""

import pytest
from clips import make_clip, noise

from speechkit.data import video
from speechkit.data.video import Limits, read_clip
from speechkit.errors import BadSample
from speechkit.frontends.patches import FrameConfig

SMALL = FrameConfig(6.0, 48)
BROKEN = {
    "no such file": (lambda p: None, "missing file"),
    "a folder": (lambda p: p.mkdir(), "missing file"),
    "nothing in it": (lambda p: p.write_bytes(b""), "empty file"),
    "text": (lambda p: p.write_text("no clip at all\n" * 100), "unreadable clip|no video"),
    "sound only": (lambda p: make_clip(p, video=False, sound=1.0, sound_codec="aac"), "no video"),
    "no pictures": (
        lambda p: make_clip(p, 0.0, sound=1.0, sound_codec="aac"),
        "no video|zero frames|unreadable",
    ),
    "one picture": (lambda p: make_clip(p, 0.04), "too short"),
    "wide": (lambda p: make_clip(p, 1.0, size=(16, 512)), "odd frame size"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_clip_that_cannot_be_used_is_refused_by_name(tmp_path, what):
    path = tmp_path / "clip.mp4"
    make, reason = BROKEN[what]
    make(path)
    with pytest.raises(BadSample, match=f"utterance u1: ({reason})") as caught:
        read_clip(str(path), SMALL, utterance="u1", limits=Limits(min_frames=3))
    assert caught.value.utterance == "u1" and "\n" not in str(caught.value)


def test_sound_is_missed_only_when_asked_for(tmp_path):
    path = make_clip(tmp_path / "clip.mp4")
    assert len(read_clip(str(path), SMALL).frames) == 12
    with pytest.raises(BadSample, match="no audio"):
        read_clip(str(path), SMALL, rate=16000)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_truncated_clips_are_refused(tmp_path, suffix):
    """A header in front promises more than there is; an mp4 whose header is at its end cannot be opened."""
    front = {"movflags": "faststart"} if suffix == "mp4" else {}
    path = make_clip(
        tmp_path / f"clip.{suffix}", 4.0, picture=noise, sound=4.0, sound_codec="aac", container=front
    )
    whole = path.read_bytes()
    assert len(read_clip(str(path), SMALL).frames) == 24
    for share in (0.3, 0.6, 0.8):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(BadSample, match="truncated clip|damaged video|unreadable clip"):
            read_clip(str(path), SMALL)
    if suffix == "mp4":
        path = make_clip(path, 4.0, picture=noise)
        path.write_bytes(path.read_bytes()[:-8000])
        with pytest.raises(BadSample, match="unreadable clip"):
            read_clip(str(path), SMALL)


def test_long_clips_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "clip.mp4", 8.0)
    monkeypatch.setattr(video, "pictures", None)
    with pytest.raises(BadSample, match="too long: 8.00 s, --max-seconds 5"):
        read_clip(str(path), SMALL, limits=Limits(max_seconds=5))


def test_entries_are_files_and_nothing_else(tmp_path):
    """ffmpeg would follow addresses, playlists and its own syntax for parts of files."""
    path = make_clip(tmp_path / "clip.ts", codec="mpeg2video")
    list_file = tmp_path / "list.m3u8"
    list_file.write_text(f"#EXTM3U\n#EXTINF:2,\nhttp://localhost:9/{path.name}\n#EXT-X-ENDLIST\n")
    for entry in (
        f"concat:{path}",
        f"subfile,,start,0,end,0,,:{path}",
        "http://localhost:9/x.mp4",
        str(list_file),
    ):
        with pytest.raises(BadSample, match="missing file|unreadable clip|no video|zero frames"):
            read_clip(entry, SMALL)


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    import builtins

    real = builtins.__import__

    def refuse(name, *rest):
        if name == "av":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match="PyAV, which is not installed; tools/setup.sh video"):
        video.need_video_library()
