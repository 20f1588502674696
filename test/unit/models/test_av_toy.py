"""Does seeing help hearing? Clips in which what is heard follows what is seen, and nothing else tells it."""

import pytest
import torch
from av_models import CMVN

from speechkit.config import from_dict
from speechkit.data.batch import Batch, pad
from speechkit.models import av_bert
from speechkit.models.assets import Assets

COLUMNS, SLICES, PATCH, BINS = 4, 6, 2, 8
MASK = {
    "first_probability": 0.5,
    "last_probability": 0.5,
    "width_step": 1,
    "max_width": 1,
    "prob_semantics": "coverage",
    "max_coverage": 0.8,
    "valid_width": 1,
    "valid_probability": 0.5,
}


def make_clips(seed, count=48):
    """A bright patch jumps to another column in each slice of time; the tone of that slice follows it."""
    made = torch.Generator().manual_seed(seed)
    columns = torch.randint(0, COLUMNS, (count, SLICES), generator=made)
    video = torch.randint(
        0, 60, (count, 3 * SLICES, PATCH, PATCH * COLUMNS, 3), generator=made, dtype=torch.uint8
    )
    features = 0.3 * torch.randn(count, 3 * SLICES, BINS, generator=made)
    seen = torch.zeros(count, SLICES, COLUMNS, dtype=torch.int64).scatter(2, columns[..., None], 1)
    for column in range(COLUMNS):
        bright = (columns == column).repeat_interleave(3, 1)
        video[:, :, :, PATCH * column : PATCH * (column + 1)][bright] = 250
        features[..., 2 * column] += 2.0 * bright
    fields = {
        "features": pad(list(features)),
        "video": pad(list(video)),
        "kmeans_audio": pad(list(columns)),
        "kmeans_video": pad(list(seen.flatten(1))),
    }
    keys = torch.randint(0, 2**40, (count,), generator=made)
    return Batch([f"u{i}" for i in range(count)], keys, None, fields)


def train(modalities, updates):
    """Share of masked audio tokens that is told right in clips that were not trained on."""
    torch.manual_seed(1)
    encoder = {
        "modalities": modalities,
        "dim": 32,
        "layers": 2,
        "heads": 2,
        "feed_forward": 64,
        "dropout": 0.0,
    }
    encoder |= {"patch": PATCH, "grid": [SLICES, 1, COLUMNS], "max_audio": SLICES}
    values = {"encoder": encoder, "mask": MASK, "classes_audio": COLUMNS, "classes_video": 2}
    colours = {"mean": [0.3] * 3, "std": [0.3] * 3}
    statistics = {**CMVN, "mean": [0.25] * BINS, "std": [0.9] * BINS}
    model = av_bert.build(from_dict(av_bert.Config, values), Assets(cmvn=statistics, video=colours))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, betas=(0.9, 0.99))
    for update in range(updates):
        losses = model.loss(make_clips(update), update)
        optimizer.zero_grad()
        sum(losses[name][0] / losses[name][1] for name in model.weights).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        right, count = model.loss(make_clips(10**6, 256), 0)["accuracy_audio"]
    return float(right) / count


@pytest.mark.slow
def test_masked_audio_is_told_better_with_video():
    alone, both = train("audio", 400), train("audio_video", 400)
    print(f"masked audio told right: {alone:.3f} alone, {both:.3f} with video")
    assert alone < 0.35 and both > alone + 0.15  # who guesses is right one time in four
