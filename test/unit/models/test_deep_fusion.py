"""A recogniser that reads a frozen AV-BERT: what is frozen, what is equal, what padding changes (nothing)."""

import copy

import pytest
import torch
from av_models import BINS, CMVN, encoder_config, known, make_recogniser, spoken

from speechkit.config import from_dict
from speechkit.data.batch import Batch, Padded
from speechkit.encoders import conformer
from speechkit.errors import InputError
from speechkit.models import ctc, deep_fusion
from speechkit.models.assets import Assets
from speechkit.models.context_cache import ContextCache
from speechkit.text.tokenizer import build_tokenizer
from speechkit.train import optim
from speechkit.train.freeze import learning

TOKENS = build_tokenizer("char", ["abc"])
PLACES = ("after_mhsa", "after_conv", "before_mhsa")


def one(batch, i):
    fields = {
        k: Padded(p.values[i : i + 1, : p.lengths[i]], p.lengths[i : i + 1]) for k, p in batch.fields.items()
    }
    return Batch([batch.ids[i]], batch.keys[i : i + 1], None, fields)


def frames(model, batch):
    found = model.encode_frames(batch)
    return found.frames, found.lengths


@pytest.mark.parametrize("kind", ["ctc", "transducer"])
def test_frozen_means_frozen(kind):
    model, batch = make_recogniser(kind, fusion={}, encoder={"dropout": 0.1}), spoken()
    others = {name: p.clone() for name, p in model.named_parameters() if not name.startswith("fusion.")}
    optimizer = optim.build(optim.Config(lr=0.01), model.float())
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not any(p.requires_grad or id(p) in held for p in model.fusion.parameters())
    assert held == {id(p) for p in learning(model)} and len(held) == len(others)
    before = {name: value.clone() for name, value in model.fusion.state_dict().items()}
    for fields in batch.fields.values():
        fields.values = fields.values.float() if fields.values.is_floating_point() else fields.values
    for update in range(10):
        model.train()
        assert not any(part.training for part in model.fusion.modules()) and model.encoder.training
        optimizer.zero_grad()
        losses = model.loss(batch, update)
        sum(value / count for value, count in losses.values()).backward()
        optimizer.step()
    after = model.fusion.state_dict()
    assert before and all(torch.equal(before[name], after[name]) for name in before)
    moved = [
        name
        for name, p in model.named_parameters()
        if name in others and not torch.equal(p, others[name].float())
    ]
    assert any("context" in name for name in moved) and len(moved) == len(others)


def test_what_is_read_has_no_gradient():
    model, batch = make_recogniser(fusion={}), spoken()
    x = batch["features"].values.requires_grad_()
    read, lengths = model.fusion(x, batch["features"].lengths)
    assert not read.requires_grad and lengths.tolist() == [30, 21, 14] and read.shape == (3, 30, 16)
    model.loss(batch, 0)["ctc"][0].backward()
    assert x.grad.any() and all(p.grad is None for p in model.fusion.parameters())


@pytest.mark.parametrize("place", PLACES)
def test_without_its_output_layer_it_is_a_conformer_that_reads_nothing(place):
    fused = make_recogniser(fusion={}, encoder={"fusion_position": place}).eval()
    plain, batch = make_recogniser(clip=1.2).eval(), spoken()
    weights = {n: w for n, w in fused.state_dict().items() if "context" not in n and "fusion" not in n}
    plain.load_state_dict({name.replace("cmvn.cmvn", "cmvn"): value for name, value in weights.items()})
    expected = frames(plain, batch)[0]
    assert not torch.allclose(frames(fused, batch)[0], expected)
    for block in fused.encoder.blocks:
        torch.nn.init.zeros_(block.context.attention.out.weight)
        torch.nn.init.zeros_(block.context.attention.out.bias)
    torch.testing.assert_close(frames(fused, batch)[0], expected, rtol=0, atol=1e-12)


def test_the_place_matters():
    found = [
        frames(make_recogniser(fusion={}, encoder={"fusion_position": p}).eval(), spoken())[0] for p in PLACES
    ]
    for first, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(found[first], found[other])


@pytest.mark.parametrize("place", PLACES)
def test_padding_changes_nothing(place):
    model = make_recogniser(fusion={"chunk_seconds": 0.3}, encoder={"fusion_position": place}).eval()
    batch = spoken(frames=(90, 61, 40, 12, 2))
    (together, lengths), x = frames(model, batch), batch["features"]
    assert lengths.tolist() == [14, 9, 6, 1, 0]
    for i, length in enumerate(lengths.tolist()):
        alone = frames(model, one(batch, i))[0]
        torch.testing.assert_close(together[i, :length], alone[0], rtol=0, atol=1e-10)
    beyond = torch.arange(x.values.size(1)) >= x.lengths[:, None]
    spoilt = Padded(x.values.masked_fill(beyond[..., None], float("nan")), x.lengths)
    assert torch.equal(frames(model, Batch(batch.ids, batch.keys, None, {"features": spoilt}))[0], together)


def test_an_utterance_with_nothing_to_read_is_a_plain_conformer():
    encoder = from_dict(
        conformer.Config, {"dim": 16, "layers": 2, "heads": 2, "feed_forward": 24, "context_dim": 6}
    )
    built = conformer.build(encoder, BINS).double().eval()
    x, lengths = torch.randn(2, 60, BINS).double(), torch.tensor([60, 50])
    context = torch.randn(2, 5, 6, dtype=torch.float64)
    plain = built(x, lengths).frames
    half = built(x, lengths, context=context, context_lengths=torch.tensor([0, 5])).frames
    torch.testing.assert_close(half[0], plain[0], rtol=0, atol=1e-12)
    assert not torch.allclose(half[1], plain[1])
    none = built(x, lengths, context=context[:, :0], context_lengths=torch.tensor([0, 0])).frames
    torch.testing.assert_close(none, plain, rtol=0, atol=1e-12)
    half.sum().backward()
    assert all(p.grad.isfinite().all() for p in built.parameters() if p.grad is not None)


def test_av_bert_reads_what_specaugment_has_not_touched():
    options = {"specaugment": {"time_ratio": 0.5}, "fusion": {}}
    model, seen = make_recogniser(**options).train(), []
    model.fusion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = spoken()
    read = []
    for keys in (batch.keys, batch.keys + 100):
        batch.keys = keys
        read.append((frames(model, batch)[0], model.fusion(seen[-1], batch["features"].lengths)[0]))
    assert not torch.allclose(read[0][0], read[1][0]) and torch.equal(read[0][1], read[1][1])
    white = ((batch["features"].values - 0.5) / 1.5).clamp(-1.2, 1.2)
    torch.testing.assert_close(seen[0], white, rtol=0, atol=1e-6)
    other = make_recogniser(**{**options, "fusion": {"augment_avbert_input": True}}).train()
    other.fusion.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frames(other, batch)
    assert (seen[-1] == 0).all(-1).any()


def test_the_cache_gives_what_av_bert_gives(tmp_path):
    model, batch = make_recogniser(fusion={}).eval(), spoken()
    features, lengths = model.cmvn(batch["features"].values), batch["features"].lengths
    fresh, counts = model.fusion(features, lengths)
    model.fusion.cache = ContextCache(tmp_path, "net", 16)
    calls = []
    model.fusion.av_bert.audio.register_forward_pre_hook(lambda *_: calls.append(1))
    for _ in range(2):
        cached, again = model.fusion(features, lengths, batch.ids)
        torch.testing.assert_close(cached, fresh, rtol=1e-3, atol=1e-3)
        assert torch.equal(again, counts) and cached.dtype == fresh.dtype
    part = torch.tensor([2, 0])
    cached, again = model.fusion(features[part], lengths[part], ["u2", "u0"])
    torch.testing.assert_close(cached[0, :14], fresh[2, :14], rtol=1e-3, atol=1e-3)
    assert again.tolist() == [14, 30] and len(calls) == 1
    changed = features.clone()
    changed[1, 4, 2] += 0.1  # the same utterance with other noise
    assert not torch.allclose(model.fusion(changed, lengths, batch.ids)[0][1], cached[1, :30], atol=1e-2)
    assert len(calls) == 2
    model.fusion.cache = ContextCache(tmp_path, "net", 16)
    model.fusion(features, lengths, batch.ids)
    assert len(calls) == 3  # only the one that was written over


def test_the_checkpoint_holds_all_and_nothing_of_video():
    model, batch = make_recogniser("transducer", fusion={}).eval(), spoken()
    names = set(model.state_dict())
    assert any(name.startswith("fusion.av_bert.audio.") for name in names)
    assert not any("video" in name for name in names)
    other = make_recogniser("transducer", fusion={}, seed=9).eval()
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(model.encode(batch)["transducer"][0], other.encode(batch)["transducer"][0])
    assert model.for_recognition()[0].fusion is not None


def test_attention_from_frames_to_tokens():
    model, batch = make_recogniser(fusion={}, encoder={"layers": 6}).eval(), one(spoken(), 0)
    maps = deep_fusion.context_maps(model, batch)
    assert list(maps) == ["block 1", "block 3", "block 4", "block 6"]
    for weights in maps.values():
        assert weights.shape == (14, 30)
        torch.testing.assert_close(weights.sum(1), torch.ones(14).double())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"name": "linear"}}, "reads no other sequence"),
        ({"encoder": {"name": "conformer", "context_dim": 5}}, "this AV-BERT has 16"),
        ({"clip": 2.0}, "clipped to 1.2"),
        ({"fusion": {"av_bert": "x", "layer": 3}}, "has 2 blocks"),
        ({"av_bert": known(encoder_config(max_audio=200))}, "chunk_seconds=10: .* positions for 6 s"),
        ({"cmvn": None}, "statistics are missing"),
        ({"av_bert": None}, "checkpoint of an AV-BERT"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    cmvn, read = changes.pop("cmvn", CMVN), changes.pop("av_bert", known())
    config = from_dict(ctc.Config, {"encoder": {"name": "conformer"}, "fusion": {"av_bert": "x"}, **changes})
    with pytest.raises(InputError, match=message):
        ctc.build(config, Assets(TOKENS, cmvn, av_bert=read))


def test_the_clip_needs_statistics_and_the_cache_unchanging_features():
    with pytest.raises(InputError, match="model.clip"):
        ctc.build(from_dict(ctc.Config, {"clip": 1.2}), Assets(TOKENS))
    with pytest.raises(ValueError, match="cache"):
        deep_fusion.Config("x", augment_avbert_input=True, cache="y")


def test_the_training_length_decides_the_window():
    assert make_recogniser(fusion={}).fusion.window == 333
    assert make_recogniser(fusion={"chunk_seconds": 2}).fusion.window == 66
    assert encoder_config().max_audio == 1024
    slow = {**CMVN, "config": {"frame_shift": 20.0}}  # statistics of features of 50 frames a second
    config = from_dict(ctc.Config, {"encoder": {"name": "conformer"}, "fusion": {"av_bert": "x"}})
    assert ctc.build(config, Assets(TOKENS, slow, av_bert=known())).fusion.window == 166
