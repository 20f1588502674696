"""Embedding Replacement: its terms, both acoustic sides, answers that end with [SEP], texts too long."""

import pytest
import torch
from fusion_models import check_alone, gradients, learn_by_heart, make_model, parts_of
from tiny_linguistic import TEXTS, alone, make_batch, shake

from speechkit.errors import InputError, ProblemsError
from speechkit.models import embedding_replacement
from speechkit.models.assets import Assets

SMALL = [
    *(f"{part}.{o}" for part in ("replacement", "aggregation") for o in ("heads=2", "feed_forward=24")),
    "replacement.max_len=9",
]
HA = "er_acoustic=ha"
RETOKENISED = "units=retokenised"


@pytest.fixture
def make(tmp_path):
    def build(*options, **values):
        return make_model(embedding_replacement, tmp_path, *SMALL, *options, **values)

    return build


@pytest.mark.parametrize(
    ("options", "acoustic"),
    [
        ((), "hpos"),
        ((HA,), "ctc2"),
        ((RETOKENISED, HA, "choice.unit=word"), "ctc2"),
        ((RETOKENISED,), "hpos"),
    ],
)
def test_terms_are_the_counted_ones_and_finite(make, options, acoustic):
    model = make(*options).train()
    batch = make_batch(model)
    losses = model.loss(batch, 0)
    assert {name: count for name, (_, count) in losses.items()} == model.counts(batch)
    assert set(losses) == {"ctc", "bert", acoustic, "ce", "gate_acoustic", "gate_linguistic"}
    assert set(model.weights) == {"ctc", "bert", acoustic, "ce"}
    assert all(torch.isfinite(value) for value, _ in losses.values())
    assert losses["gate_acoustic"][0].item() / 3 == pytest.approx(0.12, abs=0.05)
    assert model.outputs == ("", "ctc", acoustic, "ce")


def test_cross_entropies_ask_for_the_tokens_and_then_sep(make):
    """Each term again, one position at a time, from the log-probabilities of the whole vocabulary."""
    model = shake(make()).eval()
    batch = make_batch(model)
    with torch.no_grad():
        losses = model.loss(batch, 0)
        heard, _, lengths = model._hear(batch)
        fused = model.fuse(heard, lengths)
        decoder = model.bert.model.cls.predictions
        rows = [*model.units.vocab.bert_ids, model.bert.sep_id]

        def bert(states):  # the head of transformers over BERT's whole vocabulary, then our rows of it
            return decoder(states)[..., rows].log_softmax(-1)

        sides = {
            "bert": bert(fused.known),
            "ce": bert(fused.both.linguistic),
            "hpos": model.acoustic_head(fused.both.acoustic).log_softmax(-1),
        }
    for name, log_probs in sides.items():
        expected = 0.0
        for row, text in enumerate(TEXTS):
            ids = [*model.units.vocab.encode(text), len(model.units.vocab)]
            expected -= sum(log_probs[row, place, id_].item() for place, id_ in enumerate(ids))
        assert losses[name][0].item() == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("options", [(), (HA,), (RETOKENISED,)])
def test_each_term_moves_its_own_part(make, options):
    """BERT reads speech and no words: its word table is moved as an output layer only."""
    model = shake(make(*options)).eval()
    batch, acoustic = make_batch(model), "ctc2" if HA in options else "hpos"
    moved = {term: gradients(model, batch, term) for term in model.weights}
    assert not any("word_embeddings" in name or ".cls." in name for name in moved[acoustic])
    moved = {term: parts_of(names) for term, names in moved.items()}
    assert moved["ctc"] == {"encoder", "head"}
    assert moved["bert"] == {"encoder", "replacement", "bert"}
    assert moved["ce"] == {"encoder", "replacement", "bert", "aggregation"}
    assert moved[acoustic] == {"encoder", "replacement", "bert", "aggregation", "acoustic_head"}


@pytest.mark.parametrize("options", [(), (HA,), (RETOKENISED,), (RETOKENISED, HA, "choice.unit=word")])
def test_a_batch_equals_its_utterances_alone(make, options):
    """T1: padding with other content changes neither what is recognised nor a term."""
    model = shake(make(*options, double=True)).eval()
    check_alone(model)
    batch = make_batch(model, torch.float64)
    parts = [alone(batch, row) for row in range(3)]
    for field in batch.fields.values():
        for row, length in enumerate(field.lengths.tolist()):
            field.values[row, length:] = 7
    with torch.no_grad():
        losses = model.loss(batch, 0)
        for name in model.weights:
            summed = sum(model.loss(part, 0)[name][0] for part in parts)
            torch.testing.assert_close(summed, losses[name][0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("branches", ["acoustic_guided", "linguistic_guided"])
@pytest.mark.parametrize("options", [(), (HA,)])
def test_one_branch_has_one_output(make, branches, options):
    model = make(f"aggregation.branches={branches}", *options)
    batch, acoustic = make_batch(model), "ctc2" if options else "hpos"
    there, gone = (acoustic, "ce") if branches == "acoustic_guided" else ("ce", acoustic)
    heads = model.eval().encode(batch)
    assert set(heads) == {"ctc", there} and gone not in model.loss(batch, 0)
    texts = model.recognise(heads)
    assert set(texts) == {"", "ctc", there} and texts[""] == texts[there]


def test_answers_end_with_the_first_sep(make):
    """T13; what stands after it is not read, and an answer of nothing is one."""
    model = make().eval()
    sep = model.sep
    logits = torch.zeros(3, 9, sep + 1)
    for row, ids in enumerate([[2, 3, sep, 1, sep], [sep, 2], [1] * 9]):
        logits[row, range(len(ids)), ids] = 5.0
    logits[1, 2:, sep] = 5.0
    log_probs, lengths = model._answers(logits)
    assert lengths.tolist() == [2, 0, 9] and log_probs.shape == (3, 9, sep + 1)
    texts = model.recognise({"hpos": (log_probs, lengths), "ce": (log_probs, lengths)})
    vocab = model.units.vocab
    assert texts["ce"] == texts["hpos"] == texts[""] == [vocab.decode(ids) for ids in ([2, 3], [], [1] * 9)]


def test_the_surer_side_is_kept(make):
    model = make().eval()
    lengths = torch.tensor([2, 2])
    sure, unsure = torch.zeros(2, 2, model.sep + 1), torch.zeros(2, 2, model.sep + 1)
    sure[..., 2], unsure[..., 3] = 9.0, 1.0
    swapped = [torch.stack([sure[0], unsure[0]]), torch.stack([unsure[1], sure[1]])]
    texts = model.recognise(
        {"hpos": (swapped[0].log_softmax(-1), lengths), "ce": (swapped[1].log_softmax(-1), lengths)}
    )
    assert texts[""] == [texts["hpos"][0], texts["ce"][1]] and texts["hpos"][0] == texts["ce"][1]


def test_texts_beyond_the_positions(make):
    """Training leaves out texts of more than `max_len` - 2 tokens; validation asks for what has a place."""
    model = make("replacement.max_len=5").eval()
    assert model.longest_text == 3 and make().longest_text == 7
    batch = make_batch(model)
    assert batch["bert_tokens"].lengths.max() == 6
    assert all(torch.isfinite(value) for value, _ in model.loss(batch, 0).values())
    assert model.encode(batch)["ce"][0].shape[1] <= 5


def test_widths_that_differ_are_bridged(make):
    for options, width in (((), 24), ((HA,), 24), ((HA, "bridge=false"), 16), (("bridge=false",), 24)):
        model = make(*options, dim=24)
        assert bool(list(model.bridge.parameters())) == ("bridge=false" not in options)
        assert model.acoustic_head.in_features == width
        assert all(torch.isfinite(value) for value, _ in model.loss(make_batch(model), 0).values())


@pytest.mark.parametrize("options", [(), (HA,), ("aggregation.gate=none",)])
def test_a_look_at_one_utterance(make, options):
    """Pieces of BERT's answer with [SEP]; each listens somewhere; gates between 0 and 1."""
    model = shake(make(*options)).eval()
    with torch.no_grad():
        one = alone(make_batch(model), 1)
        look = model.look(one)
        lengths = model.encode(one)["ctc"][1]
    assert look.frames == lengths.item() and 1 <= len(look.tokens) <= 9
    assert set(look.tokens) <= {*model.units.vocab.tokens, "[SEP]"}
    assert look.attention["replacement"].shape == (len(look.tokens), look.frames)
    torch.testing.assert_close(look.attention["replacement"].sum(1), torch.ones(len(look.tokens)))
    gates = {**look.frame_gates, **look.token_gates}
    assert set(gates) == (set() if "aggregation.gate=none" in options else {"acoustic", "linguistic"})
    assert all(0 < value < 1 for gate in gates.values() for value in gate.tolist())
    if HA in options:
        assert len(look.frame_gates["acoustic"]) == look.frames
        assert look.attention["acoustic"].shape == look.attention["linguistic"].shape


def test_what_cannot_be_is_refused(make):
    with pytest.raises(InputError, match="embedding_replacement: needs --tokenizer"):
        embedding_replacement.build(embedding_replacement.Config(), Assets())
    with pytest.raises(InputError, match="max_len=9: BERT has 8 positions"):
        make(positions=8)
    for options in (
        (RETOKENISED, HA),
        ("normaliser=tokens",),
        ("weights.acoustic=-1",),
        ("aggregation.clock=true",),
    ):
        with pytest.raises(ProblemsError):
            make(*options)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("options", [(), (HA,)])
def test_a_few_utterances_are_learnt_by_heart(make, options):
    """T14: 400 updates; both sides read the training text."""
    model = make(*options)
    texts = learn_by_heart(model, make_batch(model))
    assert texts["ctc2" if options else "hpos"] == texts["ce"] == texts[""] == TEXTS
