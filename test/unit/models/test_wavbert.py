"""Wav-BERT: its start, its four losses, its ablations and controls, text alone, and what it recognises."""

from functools import partial

import pytest
import torch
from fusion_models import ENCODER, check_alone, gradients, learn_by_heart, make_model, parts_of, texts_of
from tiny_linguistic import BINS, TEXTS, make_batch, shake

from speechkit.config import load_config
from speechkit.data.batch import pad
from speechkit.errors import InputError, ProblemsError
from speechkit.models import ctc, wavbert
from speechkit.models.assets import Assets
from speechkit.search import two_vocabularies
from speechkit.text.tokenizer import build_tokenizer

SMALL = [
    *(f"{p}.{o}" for p in ("embedding_attention", "aggregation") for o in ("heads=2", "feed_forward=24")),
    "linguistic.sampling.start=10",
    "linguistic.sampling.end=20",
]
RETOKENISED = ["units=retokenised", "choice.unit=word"]
CLOCK = [f"{part}.clock=true" for part in ("embedding_attention", "aggregation")]
WORDS = ["units=words", "choice.unit=word", "word_scores=true", *CLOCK]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bert")


@pytest.fixture
def make(folder):
    return partial(make_model, wavbert, folder, *SMALL)


def test_the_start_is_ctc_beside_a_plain_bert(make):
    """T2: nothing has been read yet, so that both sides say what they say alone."""
    model, alone = make().eval(), None
    batch = make_batch(model)
    with torch.no_grad():
        model.head2.load_state_dict(model.head.state_dict())
        heads = model.encode(batch)
        heard = model.units.recognised(*heads["ctc"]).tokens
        ids, lengths = model.bert.sequences(heard.values, heard.lengths)
        alone = model.bert.head(model.bert(ids, lengths)[:, 1:-1]).log_softmax(-1)
    torch.testing.assert_close(heads["ctc2"][0], heads["ctc"][0], rtol=0, atol=1e-6)
    assert heads["ce"][1].tolist() == heard.lengths.tolist()
    for row, length in enumerate(heard.lengths.tolist()):
        torch.testing.assert_close(heads["ce"][0][row, :length], alone[row, :length], rtol=0, atol=1e-6)


def test_the_first_ctc_is_the_ctc_system(make):
    """Same names, same values: a trained CTC system is loaded with `encoder.` and `head.`."""
    model = make()
    config = load_config(ctc.Config, overrides=ENCODER)
    cmvn = {"mean": [0.5] * BINS, "std": [2.0] * BINS, "frames": 100}
    plain = ctc.build(config, Assets(model.units.tokenizer, cmvn)).eval()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if k.startswith(("cmvn.", "encoder.", "head."))}
    )
    batch = make_batch(model)
    with torch.no_grad():
        torch.testing.assert_close(plain.encode(batch)["ctc"], model.eval().encode(batch)["ctc"])
        ours, theirs = model.loss(batch, 0)["ctc"], plain.loss(batch, 0)["ctc"]
    torch.testing.assert_close(ours[0], theirs[0])
    assert ours[1] == theirs[1] == 3


@pytest.mark.parametrize(
    "options", [(), RETOKENISED, WORDS, ("linguistic.sampling.high=0", "linguistic.sampling.low=0")]
)
def test_terms_are_the_counted_ones_and_finite(make, options):
    model = make(*options).train()
    for batch in (make_batch(model), texts_of(make_batch(model))):
        losses = model.loss(batch, 15)
        assert {name: count for name, (_, count) in losses.items()} == model.counts(batch)
        assert all(torch.isfinite(value) for value, _ in losses.values())
        watched = {"truth", "gate_embedding", "gate_acoustic", "gate_linguistic"}
        assert set(losses) - watched <= set(model.weights)
    assert set(model.counts(make_batch(model))) == {"ctc", "cmlm", "ctc2", "ce", *watched}
    assert set(model.counts(texts_of(make_batch(model)))) == {"text_cmlm", "text_ce"}


def test_each_term_moves_its_own_part(make):
    """T5: the terms of equation 1 and what each of them reaches."""
    model = shake(make("linguistic.sampling.high=1", "linguistic.sampling.low=1")).eval()
    batch = make_batch(model)
    moved = {term: gradients(model, batch, term) for term in ("ctc", "cmlm", "ctc2", "ce")}

    parts = {term: parts_of(names) for term, names in moved.items()}
    assert parts["ctc"] == {"encoder", "head"}
    assert parts["cmlm"] == {"encoder", "embedding_attention", "bert"}
    assert parts["ctc2"] == {"encoder", "embedding_attention", "bert", "aggregation", "head2"}
    assert parts["ce"] == {"encoder", "embedding_attention", "bert", "aggregation"}
    assert not any("linguistic" in name for name in moved["ctc2"])
    assert not any("acoustic" in name for name in moved["ce"] if name.startswith("aggregation"))
    assert not {name for name in moved["ctc2"] if ".cls." in name}


def test_only_chosen_positions_count_and_never_special_ones(make):
    """T5: the conditional MLM has no gradient at other positions."""
    model = shake(make("linguistic.sampling.high=1", "linguistic.sampling.low=1")).eval()
    batch, seen = make_batch(model), []
    head = model.bert.head
    model.bert.head = lambda states: seen.append(states) or head(states)
    model.loss(batch, 0)
    given = wavbert.text_input(
        model.config.linguistic, batch["bert_tokens"], batch.keys, len(model.units.vocab)
    )
    chosen, all_of_them = (given.cmlm != wavbert.IGNORE).sum(), batch["bert_tokens"].lengths.sum()
    assert [len(states) for states in seen] == [int(chosen), int(all_of_them)]
    assert 0 < chosen < all_of_them


@pytest.mark.parametrize(
    ("branches", "heads", "gone"),
    [("acoustic_guided", {"ctc", "ctc2"}, "ce"), ("linguistic_guided", {"ctc", "ce"}, "ctc2")],
)
def test_one_branch_has_one_output_and_no_other_parameters(make, branches, heads, gone):
    """T8."""
    model = make(f"aggregation.branches={branches}")
    batch = make_batch(model)
    assert set(model.eval().encode(batch)) == heads and gone not in model.loss(batch, 0)
    other = "linguistic" if branches.startswith("acoustic") else "acoustic"
    assert not any(other in name for name, _ in model.aggregation.named_parameters())
    assert (model.head2 is None) == (gone == "ctc2")
    assert set(model.recognise(model.encode(batch))) == {"", *heads}


def test_without_gated_attention_nothing_is_heard_before_bert(make):
    model = shake(make("embedding_attention=null")).eval()
    assert not any("embedding_attention" in name for name in model.state_dict())
    batch = make_batch(model)
    moved = gradients(model, batch, "cmlm")
    assert parts_of(moved) == {"bert"}


def test_masks_alone_tell_bert_nothing_but_the_length(make):
    """The control: other tokens of the same number change nothing after the first CTC."""
    model = shake(make("reads=masks")).eval()
    batch = make_batch(model)
    heard, log_probs, lengths = model._hear(batch)
    said = model.units.recognised(log_probs, lengths)
    rows = [
        wavbert.inference_input(pad([torch.tensor(r) for r in rows]), 10)
        for rows in ([[1, 2]] * 3, [[3, 4]] * 3)
    ]
    with torch.no_grad():
        first, second = (model.fuse(heard, lengths, given, said).both for given in rows)
        torch.testing.assert_close(first.acoustic, second.acoustic, rtol=0, atol=0)
        model.config.reads = "tokens"
        first, second = (model.fuse(heard, lengths, given, said).both for given in rows)
    assert (first.acoustic - second.acoustic).abs().max() > 1e-4


@pytest.mark.parametrize("options", [(), RETOKENISED, WORDS, ("refine=3",), CLOCK])
def test_a_batch_equals_its_utterances_alone(make, options):
    check_alone(shake(make(*options, double=True)).eval())


def test_widths_that_differ_are_bridged(make):
    model = make(dim=24)
    assert sum(p.numel() for p in model.bridge.parameters()) == 16 * 24 + 3 * 24
    assert model.head2.in_features == 24 and model.head.in_features == 16
    for batch in (make_batch(model), texts_of(make_batch(model))):
        assert all(torch.isfinite(value) for value, _ in model.loss(batch, 0).values())
    model = make("bridge=false", dim=24)
    assert not list(model.bridge.parameters()) and model.head2.in_features == 16
    model.loss(make_batch(model), 0), model.loss(texts_of(make_batch(model)), 0)


def test_nothing_recognised_leaves_the_special_tokens_and_ctc(make):
    """G17: BERT reads [CLS] [SEP]; the cross entropy has nothing to say, so that CTC is kept."""
    model = make().eval()
    with torch.no_grad():
        model.head.bias[0] = 1e3
        heads = model.encode(make_batch(model))
    assert heads["ce"][0].shape[:2] == (3, 0) and heads["ce"][1].tolist() == [0, 0, 0]
    texts = model.recognise(heads)
    assert texts["ce"] == [""] * 3 and texts[""] == texts["ctc2"]


def test_long_hypotheses_are_cut_for_bert_alone(make):
    model = make(positions=5).eval()
    with torch.no_grad():
        model.head.weight.mul_(30)
        heads = model.encode(make_batch(model))
    sizes = model.units.recognised(*heads["ctc"]).tokens.lengths
    assert sizes.max() > 3 and heads["ce"][1].tolist() == sizes.clamp(max=3).tolist()


def test_retokenised_hypotheses_are_the_words_that_ctc_spelt(make):
    model = make(*RETOKENISED)
    encode, linguistic = model.units.tokenizer.encode, model.units.linguistic
    assert model.units.vocab.decode(linguistic(encode("the dog sat"))) == "the dog sat"
    assert linguistic(encode("tha dog")) == [0, *model.units.vocab.encode("dog")]
    assert linguistic([]) == []


@pytest.mark.parametrize("options", [(), RETOKENISED])
def test_tokens_that_ctc_is_unsure_of_are_masked(make, options):
    """Each has the confidence of its frames, or of its word; those below the threshold stand as [MASK]."""
    model = make("linguistic.mask_below=0.5", *options)
    units, sizes = model.units, torch.tensor([7, 3])
    spelt = units.tokenizer.encode("the dog")
    chances = torch.full((2, 8, units.ctc_size), 1e-6)
    for frame, id_ in enumerate(spelt):
        chance = 0.9 if frame < len(spelt) // 2 else 0.4
        chances[0, frame] = (1 - chance) / (units.ctc_size - 1)
        chances[0, frame, id_] = chance
    chances[1, :, 0] = 1.0
    tokens, sure, *_ = units.recognised((chances / chances.sum(-1, keepdim=True)).log(), sizes)
    assert tokens.lengths.tolist() == [2, 0]
    assert units.vocab.decode(tokens.values[0].tolist()) == "the dog"
    # Of "the dog" in letters the space belongs to none of the words.
    expected = [0.9**3, 0.4**3] if options else [0.9, 0.4]
    torch.testing.assert_close(sure[0].exp().tolist(), expected, rtol=1e-3, atol=1e-4)
    given = wavbert.inference_input(tokens, 10, model.config.linguistic.unsure(sure))
    assert given.masked.tolist() == [[False, True], [False, False]]


def test_what_cannot_be_is_refused(make):
    with pytest.raises(InputError, match="needs --tokenizer"):
        wavbert.build(wavbert.Config(), Assets())
    with pytest.raises(InputError, match="needs a BERT; name its folder"):
        wavbert.build(wavbert.Config(), Assets(build_tokenizer("char", TEXTS)))
    for option in ("units=retokenised", "normaliser=tokens", "refine=0", "weights.ce=-1"):
        with pytest.raises(ProblemsError):
            make(option)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_few_utterances_are_learnt_by_heart(make):
    """T14: 400 updates; CTC2 and the cross entropy both read the training text."""
    model = make("linguistic.sampling.start=100", "linguistic.sampling.end=300")
    texts = learn_by_heart(model, make_batch(model))
    assert texts["ctc2"] == texts["ce"] == texts[""] == TEXTS


def test_the_scores_of_words_join_the_cross_entropy(make, monkeypatch):
    """What it says alone, and a learnt share of CTC's scores, which the text alone has none of."""
    monkeypatch.setattr(two_vocabularies, "PRICE", -9.0)  # random weights would say nothing
    model = make(*WORDS).eval()
    batch = make_batch(model)
    with torch.no_grad():
        known, sizes = model.encode(batch)["ce"]
        scale, _ = model.word_scale.clone(), model.word_scale.zero_()
        without, _ = model.encode(batch)["ce"]
        said = model.units.recognised(*model.encode(batch)["ctc"])
    assert said.tokens.lengths.min() > 0
    told = (without + scale * said.scores[:, : without.size(1)]).log_softmax(-1)
    for row, size in enumerate(sizes.tolist()):
        torch.testing.assert_close(known[row, :size], told[row, :size], rtol=0, atol=1e-5)
    assert "word_scale" in gradients(model.train(), batch, "ce")
    assert "word_scale" not in gradients(model, texts_of(batch), "text_ce")


def test_an_inserted_word_can_be_answered_with_nothing(make):
    """[UNK] as the answer is not written."""
    model = make(*WORDS)
    ids = model.units.vocab.encode("the dog")
    answers = torch.full((1, 3, len(model.units.vocab)), -9.0)
    for place, id_ in enumerate((ids[0], 0, ids[1])):
        answers[0, place, id_] = -0.1
    silence = torch.full((1, 4, model.units.ctc_size), -9.0)
    silence[..., 0] = -0.1
    heads = {
        "ctc": (silence, torch.tensor([4])),
        "ctc2": (silence, torch.tensor([4])),
        "ce": (answers, torch.tensor([3])),
    }
    assert model.recognise(heads)["ce"] == ["the dog"]


def test_words_that_speech_has_not_are_spared_by_speech_alone(make):
    """Their biases in BERT's head get no gradient from speech, and one from text."""

    def moved(model, batch, term):
        gradients(model, batch, term)
        bias = dict(model.bert.model.named_parameters())["cls.predictions.bias"].grad
        return {model.units.vocab.vocab[place] for place in bias.nonzero()[:, 0].tolist()}

    for spare in (True, False):
        model = make(*WORDS, f"spare_unheard={spare}".lower()).train()
        batch = make_batch(model)
        model.hear_of(torch.tensor(model.units.vocab.encode("the dog sat on a mat")))  # no cat
        batch.fields["bert_tokens"].values[0, 1] = batch["bert_tokens"].values[0, 0]  # nor in the truth
        assert ("cat" in moved(model, batch, "ce")) is ("cat" in moved(model, batch, "cmlm")) is not spare
        assert "dog" in moved(model, batch, "ce") and "cat" in moved(model, texts_of(batch), "text_ce")
        model.eval()
        assert torch.isfinite(model.loss(make_batch(model), 0)["ce"][0])  # dev may have it
