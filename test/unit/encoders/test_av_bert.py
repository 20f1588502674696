"""AV-BERT's encoder: embeddings as convolutions, positions, padding, modalities, windows of audio."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from av_models import BINS, PATCH, encoder_config

from speechkit.encoders.av_bert import Audio, AvBert, Video
from speechkit.errors import InputError
from speechkit.frontends.patches import patchify_video, stack_audio
from speechkit.layers.masks import Packing
from speechkit.layers.patch_embeddings import AudioTokens, VideoTokens


def make(seed=0, **changes):
    torch.manual_seed(seed)
    encoder = AvBert(encoder_config(**changes), BINS).double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.rand_like(parameter))
    return encoder


def clips(audio=(11, 20, 4), slices=(3, 5, 0), starts=(0, 0, 0), rows=2, columns=3, seed=1):
    """Random patches, and masks of a third of them."""
    made = torch.Generator().manual_seed(seed)
    count = rows * columns
    seen = torch.tensor(slices) * count
    patches = torch.randn(len(slices), max(slices) * count, 3 * PATCH**2 * 3, generator=made).double()
    heard = torch.randn(len(audio), max(audio), 3 * BINS, generator=made).double()
    masks = [torch.rand(x.shape[:2], generator=made) < 0.3 for x in (heard, patches)]
    spans = torch.tensor(starts), torch.tensor(starts) + torch.tensor(slices)
    video = Video(patches, seen, (rows, columns), *spans, masks[1])
    return Audio(heard, torch.tensor(audio), masks[0]), video


def one(audio, video, i):
    """A clip alone, cut to its own length; without video where it has none."""
    heard, seen = int(audio.lengths[i]), int(video.lengths[i])
    rows = slice(i, i + 1)
    alone = Audio(audio.patches[rows, :heard], audio.lengths[rows], audio.hidden[rows, :heard])
    if not seen:
        return alone, None
    cut = video.patches[rows, :seen], video.lengths[rows]
    return alone, Video(*cut, video.image, video.starts[rows], video.slices[rows], video.hidden[rows, :seen])


OPTIONS = [
    {},
    {"norm": "layer"},
    {"inst_scope": "joint"},
    {"norm_first": False},
    {"video_pos": "full"},
    {"concat": "av"},
]


@pytest.fixture(params=OPTIONS, ids=str)
def options(request):
    return request.param


def test_embeddings_are_convolutions():
    video = VideoTokens(3 * PATCH**2 * 3, 16, (2, 2, 3), True).double()
    frames = torch.randn(2, 6, 2 * PATCH, 3 * PATCH, 3, dtype=torch.float64)
    kernel = video.patch.weight.unflatten(1, (3, PATCH, PATCH, 3)).permute(0, 4, 1, 2, 3)
    stride = (3, PATCH, PATCH)
    expected = F.conv3d(frames.permute(0, 4, 1, 2, 3), kernel, video.patch.bias, stride=stride)
    found = video.patch(patchify_video(frames, 3, PATCH))
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2), rtol=0, atol=1e-12)
    audio = AudioTokens(3 * BINS, 16, 9, "error").double()
    features = torch.randn(2, 14, BINS, dtype=torch.float64)
    kernel = audio.patch.weight.unflatten(1, (3, BINS)).transpose(1, 2)
    expected = F.conv1d(features.transpose(1, 2), kernel, audio.patch.bias, stride=3)
    stacked, _ = stack_audio(features, torch.tensor([14, 14]))
    torch.testing.assert_close(audio.patch(stacked), expected.transpose(1, 2), rtol=0, atol=1e-12)


def test_a_batch_is_each_clip_alone(options):
    encoder, (audio, video) = make(**options), clips()
    together = encoder(audio, video)
    parts = together.audio.split(audio.lengths.tolist()), together.video.split(video.lengths.tolist())
    for i in range(3):
        alone = encoder(*one(audio, video, i))
        torch.testing.assert_close(parts[0][i], alone.audio, rtol=0, atol=1e-10)
        if alone.video is not None:
            torch.testing.assert_close(parts[1][i], alone.video, rtol=0, atol=1e-10)


def test_padding_may_be_nan_and_has_no_gradient(options):
    encoder, (audio, video) = make(**options), clips()
    clean = encoder(audio, video)
    spoilt = []
    for part in (audio, video):
        beyond = torch.arange(part.patches.size(1)) >= part.lengths[:, None]
        spoilt.append(part._replace(patches=part.patches.masked_fill(beyond[..., None], float("nan"))))
    found = encoder(*spoilt)
    assert torch.equal(found.audio, clean.audio) and torch.equal(found.video, clean.video)
    (found.audio.sin().sum() + found.video.sin().sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_each_modality_looks_at_the_other_and_clips_do_not():
    encoder, (audio, video) = make(), clips()
    before = encoder(audio, video)
    other = video.patches.clone()
    other[1] = torch.randn_like(other[1])
    after = encoder(audio, video._replace(patches=other, hidden=None))
    sizes = audio.lengths.tolist()
    same = [torch.allclose(a, b) for a, b in zip(before.audio.split(sizes), after.audio.split(sizes))]
    assert same == [False, False, True]  # [MASK] of clip 0 is gone too, and clip 2 has no video


def test_masked_patches_are_not_seen():
    encoder, (audio, video) = make(), clips()
    hidden = audio.patches.masked_fill(audio.hidden[..., None], 7.0)
    pictures = video.patches.masked_fill(video.hidden[..., None], -7.0)
    before, after = (
        encoder(audio, video),
        encoder(audio._replace(patches=hidden), video._replace(patches=pictures)),
    )
    assert torch.equal(before.audio, after.audio) and torch.equal(before.video, after.video)


def test_audio_alone_touches_nothing_of_video(options):
    encoder, (audio, _) = make(**options), clips()
    encoder(audio).audio.sum().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is None) == name.startswith("video."), name
    small = AvBert(encoder_config(modalities="audio", **options), BINS)
    assert small.video is None
    wanted = {name for name in encoder.state_dict() if not name.startswith("video.")}
    assert set(small.state_dict()) == wanted


def test_audio_needs_no_video_library():
    code = (
        "import sys; sys.modules['av'] = None; import speechkit.models.av_bert, speechkit.models.deep_fusion"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=250)


def test_positions_of_video():
    tokens = VideoTokens(4, 3, (2, 2, 2), True).double()
    with torch.no_grad():
        for parameter in tokens.parameters():
            parameter.zero_()
        tokens.places.copy_(torch.arange(4.0)[:, None])
        tokens.times.copy_(10 * torch.arange(2.0)[:, None])

    def places(lengths, image, starts, slices):
        packing = Packing(torch.tensor(lengths))
        made = torch.zeros(packing.total, 4).double()
        found = tokens(made, packing, image, torch.tensor(starts), torch.tensor(slices))
        return [int(value) for value in found[:, 0]]

    assert places([8], (2, 2), [0], [2]) == [0, 1, 2, 3, 10, 11, 12, 13]
    assert places([4, 4], (2, 2), [1, 0], [2, 1]) == [10, 11, 12, 13, 0, 1, 2, 3]
    assert places([4], (1, 4), [0], [1]) == [0, 0, 1, 1]  # the nearest ones of another image
    assert places([4], (1, 1), [0], [4]) == [0, 0, 10, 10]  # ... and of a longer clip
    full = VideoTokens(4, 3, (2, 2, 2), False)
    assert full.places.shape == (8, 3) and full.times is None


def test_positions_of_long_audio():
    audio = AudioTokens(4, 3, 5, "interp").double()
    with torch.no_grad():
        for parameter in audio.parameters():
            parameter.zero_()
        audio.positions.copy_(torch.arange(5.0)[:, None])
    packing = Packing(torch.tensor([9, 5, 3]))
    found = audio(torch.zeros(17, 4).double(), packing)[:, 0]
    expected = [*(0.5 * n for n in range(9)), *range(5), *range(3)]
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=1e-12)
    audio.extend = "error"
    with pytest.raises(InputError, match="9 tokens, and there are 5 positions"):
        audio(torch.zeros(17, 4).double(), packing)


def test_windows_of_audio_are_read_apart():
    encoder = make(max_audio=8)
    lengths, x = torch.tensor([50, 24, 1, 0]), torch.randn(4, 53, BINS, dtype=torch.float64)
    tokens, counts = encoder.audio_tokens(x, lengths, window=8)
    assert counts.tolist() == [17, 8, 1, 0] and tokens.shape == (4, 17, 16)
    for begin, end in ((0, 24), (24, 48), (48, 50)):
        part, count = encoder.audio_tokens(x[:1, begin:end], torch.tensor([end - begin]), window=8)
        rows = slice(begin // 3, begin // 3 + int(count))
        torch.testing.assert_close(tokens[0, rows], part[0], rtol=0, atol=1e-10)
    stacked, _ = stack_audio(x[1:2, :24], torch.tensor([24]))
    whole = encoder(Audio(stacked, torch.tensor([8]))).audio
    torch.testing.assert_close(tokens[1, :8], whole, rtol=0, atol=1e-10)
    assert not tokens[1, 8:].any() and tokens.isfinite().all()
    assert encoder.audio_tokens(x[3:], lengths[3:])[0].shape == (1, 0, 16)


def test_an_incomplete_patch_is_filled_with_zeros_of_which_padding_knows_nothing():
    encoder, x = make(), torch.randn(1, 8, BINS, dtype=torch.float64)
    filled = torch.cat([x[:, :7], torch.zeros(1, 2, BINS).double()], 1)
    found = encoder.audio_tokens(x, torch.tensor([7]))[0]
    torch.testing.assert_close(found, encoder.audio_tokens(filled, torch.tensor([9]))[0], rtol=0, atol=1e-12)


def test_an_inner_layer_has_no_final_norm():
    encoder, x, lengths = make(layers=3), torch.randn(1, 30, BINS).double(), torch.tensor([30])
    states = [encoder.audio_tokens(x, lengths, layer=k)[0] for k in (1, 2, 3, -1)]
    assert not torch.allclose(states[0], states[1])
    torch.testing.assert_close(encoder.norm(states[2][0], [10]), states[3][0], rtol=0, atol=1e-12)


def test_checkpointing_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        encoder, (audio, video) = make(checkpointing=checkpointing, dropout=0.2).train(), clips()
        torch.manual_seed(3)
        states = encoder(audio, video)
        (states.audio.sin().sum() + states.video.sin().sum()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters()]))
    assert gradients[0].any()
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_the_published_encoder():
    with torch.device("meta"):
        encoder = AvBert(
            encoder_config(dim=128, layers=6, heads=4, feed_forward=512, patch=16, grid=[20, 16, 16]), 64
        )
    shapes = {name: tuple(p.shape) for name, p in encoder.named_parameters()}
    assert shapes["video.patch.weight"] == (128, 2304) and shapes["audio.patch.weight"] == (128, 192)
    assert shapes["video.places"] == (256, 128) and shapes["video.times"] == (20, 128)
    assert shapes["audio.positions"] == (1024, 128)
    blocks = sum(p.numel() for p in encoder.blocks.parameters())
    assert blocks == 6 * (4 * (128 * 128 + 128) + 2 * 128 * 512 + 512 + 128 + 4 * 128)
