"""The Gumbel product quantizer against its definition, and its temperature against published anchors."""

import pytest
import torch

from speechkit.layers.gumbel_quantizer import Config, GumbelQuantizer


def make(groups=2, entries=5, dim=6, channels=4):
    torch.manual_seed(3)
    quantizer = GumbelQuantizer(Config(groups=groups, entries=entries), channels, dim).double()
    return quantizer, torch.randn(7, channels, dtype=torch.float64)


def test_vectors_are_exact_rows_of_the_codebooks():
    quantizer, x = make()
    for training in (True, False):
        quantized = quantizer.train(training)(x, 2.0)
        books = quantizer.codevectors.view(2, 5, 3)
        for n in range(7):
            rows = [books[g, quantized.codes[n, g]] for g in range(2)]
            assert torch.equal(quantized.vectors[n], torch.cat(rows))
    words = quantizer.words(quantized.codes)
    assert words.tolist() == [int(5 * a + b) for a, b in quantized.codes]


def test_gradient_is_that_of_the_soft_choice():
    quantizer, x = make()
    noise = torch.randn(7, 2, 5, dtype=torch.float64)
    quantizer.noise = lambda logits: noise
    weights = torch.randn(7, 6, dtype=torch.float64)

    (quantizer(x, 0.7).vectors * weights).sum().backward()
    found = {name: p.grad.clone() for name, p in quantizer.named_parameters()}
    quantizer.zero_grad()

    logits = (quantizer.weight_proj(x).view(7, 2, 5) + noise) / 0.7
    soft = logits.exp() / logits.exp().sum(-1, keepdim=True)
    soft.retain_grad()
    books = quantizer.codevectors.detach().view(2, 5, 3)
    ((soft[..., None] * books).sum(2).flatten(1) * weights).sum().backward()
    torch.testing.assert_close(found["weight_proj.weight"], quantizer.weight_proj.weight.grad)
    torch.testing.assert_close(found["weight_proj.bias"], quantizer.weight_proj.bias.grad)

    hard = torch.nn.functional.one_hot(logits.argmax(-1), 5).double()  # the codebook sees the hard choice
    expected = torch.einsum("ngv,ngd->gvd", hard, weights.view(7, 2, 3)).reshape(1, 10, 3)
    torch.testing.assert_close(found["codevectors"], expected)


def test_evaluation_has_no_noise_and_training_does():
    quantizer, x = make()
    quantizer.eval()
    best = quantizer.weight_proj(x).view(7, 2, 5).argmax(-1)
    assert torch.equal(quantizer(x, 2.0).codes, best) and torch.equal(quantizer(x, 0.1).codes, best)
    quantizer.train()
    drawn = torch.stack([quantizer(x, 2.0).codes for _ in range(200)])
    assert (drawn != best).any()


def test_entries_are_drawn_with_the_probabilities_of_the_softmax():
    # The Gumbel-max theorem: argmax(logits + noise) is drawn from softmax(logits), whatever the temperature.
    quantizer, x = make()
    quantized = quantizer(x[:1].repeat(20_000, 1), 0.5)
    found = torch.nn.functional.one_hot(quantized.codes, 5).double().mean(0)
    expected = quantizer.weight_proj(x[:1]).view(2, 5).softmax(-1)
    torch.testing.assert_close(found, expected, atol=0.015, rtol=0)
    torch.testing.assert_close(quantized.probabilities[0], expected)


def test_noise_is_finite_and_gumbel():
    quantizer, _ = make()
    noise = quantizer.noise(torch.zeros(1_000_000))
    assert noise.isfinite().all()
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(noise.var()) == pytest.approx(torch.pi**2 / 6, rel=0.01)


def test_computes_in_fp32_under_autocast():
    quantizer, x = make()
    quantizer.float()
    with torch.autocast("cpu", torch.bfloat16):
        quantized = quantizer(x.bfloat16(), 2.0)
    assert quantized.vectors.dtype == quantized.probabilities.dtype == torch.float32


@pytest.mark.parametrize("end, update", [(0.5, 277_259), (0.1, 599_147)])
def test_temperature_of_the_published_schedules(end, update):
    config = Config(temperature_end=end)
    assert config.temperature(0) == 2.0
    assert config.temperature(update - 3) > end and config.temperature(update) == end
    values = [config.temperature(n) for n in range(0, 700_000, 1000)]
    assert values == sorted(values, reverse=True) and values[-1] == end


def test_temperature_of_base_ends_between_two_known_updates():
    assert Config().temperature(277_258) > 0.5 and Config().temperature(277_259) == 0.5


def test_temperature_with_a_given_last_update():
    config = Config(temperature_end=0.5, temperature_updates=700)
    assert config.temperature(0) == 2.0 and config.temperature(350) == pytest.approx(1.0)
    assert config.temperature(699) > 0.5 and config.temperature(700) == config.temperature(10_000) == 0.5


@pytest.mark.parametrize(
    "values, message",
    [
        ({"groups": 0}, "groups=0"),
        ({"groups": 8}, "more than 2\\^63"),
        ({"dim": 7}, "dim=7 must be a multiple of groups=2"),
        ({"temperature_end": 3.0}, "temperature_start=2.0"),
        ({"temperature_decay": 1.5}, "temperature_decay=1.5"),
        ({"temperature_updates": 0}, "temperature_updates=0"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Config(**values)
