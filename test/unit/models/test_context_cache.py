"""The cache of a frozen network's outputs: several processes, stops at any point, other networks."""

import pytest
import torch

from speechkit.errors import InputError
from speechkit.models.context_cache import ContextCache


def features(seed, frames=20):
    return torch.randn(frames, 4, generator=torch.Generator().manual_seed(seed))


def test_what_was_put_comes_back_and_nothing_else(tmp_path):
    cache, values = ContextCache(tmp_path, "a", 3), torch.randn(7, 3)
    assert cache.get("u", features(0)) is None
    cache.put("u", features(0), values)
    cache.put("v", features(1, 30), values[:0])
    assert torch.equal(cache.get("u", features(0)), values.half())
    assert cache.get("v", features(1, 30)).shape == (0, 3)
    for key in (("u", features(1)), ("v", features(0)), ("u", features(0)[:19]), ("u", features(0).flip(0))):
        assert cache.get(*key) is None


def test_processes_read_what_all_wrote_and_go_on_with_their_own(tmp_path):
    first, second = (ContextCache(tmp_path, "a", 3, rank) for rank in (0, 1))
    rows = {i: torch.randn(5 + i, 3).half() for i in range(6)}
    for i, values in rows.items():
        (first, second)[i % 2].put(f"u{i}", features(i), values)
    again = ContextCache(tmp_path, "a", 3, 1)
    again.put("more", features(9), rows[0])
    for cache in (again, ContextCache(tmp_path, "a", 3, 2)):
        for i, values in rows.items():
            assert torch.equal(cache.get(f"u{i}", features(i)), values)
        assert torch.equal(cache.get("more", features(9)), rows[0])


@pytest.mark.parametrize("cut", ["line", "rows"])
def test_a_process_killed_while_writing_loses_only_that(tmp_path, cut):
    cache, values = ContextCache(tmp_path, "a", 3), torch.randn(7, 3).half()
    cache.put("u", features(0), values)
    with open(tmp_path / "part0.f16", "ab") as file:
        file.write(b"12345")
    if cut == "line":
        with open(tmp_path / "part0.jsonl", "ab") as file:
            file.write(b'["half", 3')
    again = ContextCache(tmp_path, "a", 3)
    again.put("v", features(1), values + 1)
    for cache in (again, ContextCache(tmp_path, "a", 3)):
        assert torch.equal(cache.get("u", features(0)), values)
        assert torch.equal(cache.get("v", features(1)), values + 1)


def test_another_network_or_a_damaged_index_is_refused(tmp_path):
    ContextCache(tmp_path, "a", 3).put("u", features(0), torch.randn(2, 3))
    for other in (("b", 3), ("a", 4)):
        with pytest.raises(InputError, match="another AV-BERT"):
            ContextCache(tmp_path, *other)
    (tmp_path / "part0.jsonl").write_bytes(b"rubbish\n")
    with pytest.raises(InputError, match=r"part0.jsonl:1: damaged"):
        ContextCache(tmp_path, "a", 3)
