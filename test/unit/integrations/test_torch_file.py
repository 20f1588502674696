"""Files of torch.save, in both formats, against torch.load."""

import pytest
import torch

from speechkit.errors import InputError
from speechkit.integrations.torch_file import LazyTensor, open_torch


def save(value, path, legacy):
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.fixture
def state():
    base = torch.arange(24.0).reshape(4, 6)
    parameter = torch.nn.Parameter(torch.randn(3, 2))
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.int16, torch.int8)
    return {
        "whole": base,
        "view": base[1:, ::2],
        "turned": base.T,
        "parameter": parameter,
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 5),
        "bool": torch.tensor([True, False]),
        "bytes": torch.tensor([1, 255], dtype=torch.uint8),
        **{str(kind): torch.arange(5).to(kind) for kind in kinds},
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_as_torch_reads_them(tmp_path, state, legacy):
    file = open_torch(save({"model": state, "step": 3}, tmp_path / "x.pt", legacy))
    assert file.value["step"] == 3
    assert all(isinstance(tensor, LazyTensor) for tensor in file.value["model"].values())
    assert file.value["model"]["view"].shape == (3, 3)
    found = file.tensors(file.value["model"])
    expected = torch.load(tmp_path / "x.pt", weights_only=True)["model"]
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name]), name
    assert found["view"].data_ptr() != found["whole"].data_ptr()


@pytest.mark.parametrize("legacy", [False, True])
def test_only_what_is_asked_for_is_read(tmp_path, legacy):
    value = {"model": {"a": torch.ones(3)}, "optimizer": {"b": torch.ones(100_000)}}
    path = save(value, tmp_path / "x.pt", legacy)
    file = open_torch(path)
    read = []
    inner = file._read
    file._read = lambda storage: read.append(storage.count) or inner(storage)
    assert torch.equal(file.tensors(file.value["model"])["a"], torch.ones(3))
    assert read == [3]


def test_a_tensor_beyond_its_data_is_refused(tmp_path):
    file = open_torch(save({"a": torch.ones(4)}, tmp_path / "x.pt", False))
    good = file.value["a"]
    for offset, size, stride in (
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2,), (4,)),
        (0, (1 << 40,), (0,)),
        (-1, (2,), (1,)),
        (0, (2, 2), (1,)),
    ):
        bad = LazyTensor(good.storage, offset, size, stride)
        with pytest.raises(InputError, match="tensor a reaches beyond its data"):
            file.tensors({"a": bad})
