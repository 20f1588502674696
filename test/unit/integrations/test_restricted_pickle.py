"""The pickle machine against Python's own on harmless data; names it must and must not take."""

import argparse
import collections
import io
import pathlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speechkit.errors import InputError
from speechkit.integrations.restricted_pickle import Machine, Stub, plain

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(), max_size=4)
        | st.sets(st.integers(), max_size=4)
    ),
    max_leaves=25,
)


def read(content):
    return Machine().run(io.BytesIO(content))


@given(value=VALUES, protocol=st.integers(0, 5))
def test_containers_and_numbers_as_python_reads_them(value, protocol):
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", range(6))
def test_shared_and_ordered_containers(protocol):
    shared = [1, 2]
    value = collections.OrderedDict(a=shared, b=shared)
    value.attribute = {"version": 1}  # as a state_dict's _metadata
    found = read(pickle.dumps(value, protocol))
    assert found == {"a": [1, 2], "b": [1, 2]} and found["a"] is found["b"]
    assert read(pickle.dumps(collections.defaultdict(list, x=[3]), protocol)) == {"x": [3]}


@pytest.mark.parametrize("protocol", range(6))
def test_a_namespace_becomes_a_stub(protocol):
    inner = argparse.Namespace(layers=2, where=pathlib.PurePosixPath("/data"))
    found = read(pickle.dumps(argparse.Namespace(w2v_args=inner, names=("a", "b")), protocol))
    assert isinstance(found, Stub) and (found.module, found.name) == ("argparse", "Namespace")
    assert plain(found)["w2v_args"]["layers"] == 2
    assert plain(found)["names"] == ["a", "b"]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_omegaconf_containers_become_plain(protocol):
    omegaconf = pytest.importorskip("omegaconf")
    value = {"model": {"layers": 12, "rates": [0.5, None], "name": "hubert"}, "normalize": True}
    found = plain(read(pickle.dumps(omegaconf.OmegaConf.create(value), protocol)))
    assert found == value


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cos\nsystem\n(S'touch x'\ntR.", "os.system"),
        (b"cposix\nsystem\n(S'touch x'\ntR.", "posix.system"),
        (b"(S'touch x'\nios\nsystem\n.", "os.system"),
        (b"c__builtin__\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cbuiltins\nexec\n.", "builtins.exec"),
        (b"cbuiltins\ngetattr\n(cbuiltins\ndict\nS'get'\ntR.", "builtins.getattr"),
        (
            b"\x80\x04\x8c\x08argparse\x8c\x1eNamespace.__init__.__globals__\x93.",
            "argparse.Namespace.__init__",
        ),
        (b"\x80\x04\x8c\x0comegaconf.os\x8c\x06system\x93.", "omegaconf.os.system"),
        (b"\x80\x04\x8c\x07fairseq\x8c\x02os\x93.", "fairseq.os"),
        (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        (b"cnumpy.core.multiarray\nfromstring\n.", "numpy.core.multiarray.fromstring"),
        (b"coperator\nattrgetter\n.", "operator.attrgetter"),
        (b"cfunctools\npartial\n.", "functools.partial"),
        (b"cbuiltins\n__import__\n.", "builtins.__import__"),
    ],
)
def test_any_other_name_is_refused(content, name):
    with pytest.raises(InputError, match=rf"refused: it names {name}"):
        read(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02]\x85R.", "damaged pickle"),
        (b"](tR.", "refused: it calls a list, not a name"),
        (b"cargparse\nNamespace\n(tR(tR.", "refused: it calls a Stub, not a name"),
        (b"\x82\x01.", "refused: the pickle instruction EXT1"),
        (b"\x80\x05\x97.", "refused: the pickle instruction NEXT_BUFFER"),
        (b"Pid\n.", "refused: a persistent id where none belongs"),
        (b"", "damaged pickle"),
        (b"\x80\x02}q\x00", "damaged pickle"),
        (b"h\x07.", "damaged pickle"),
        (b"0.", "damaged pickle"),
        (b"t.", "damaged pickle"),
        (b"NN.", "damaged pickle"),
        (b"K\x01Na.", "damaged pickle"),
        (b"X\x01\x00\x00\x00aNNs.", "damaged pickle"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "damaged pickle"),
        (b"\xff.", "damaged pickle"),
    ],
)
def test_damage_and_strange_instructions(content, message):
    with pytest.raises(InputError, match=message):
        read(content)


@pytest.mark.parametrize("size", [0, 1, 5, 20, 60, -1])
def test_a_pickle_cut_anywhere(size):
    whole = pickle.dumps({"args": argparse.Namespace(a=[1, 2.5, "x"] * 5), "b": {3: b"y"}}, 2)
    with pytest.raises(InputError):
        read(whole[:size])


def test_a_configuration_within_itself_is_refused():
    loop = argparse.Namespace()
    loop.inner = loop
    with pytest.raises(InputError, match="within itself"):
        plain(read(pickle.dumps(loop)))


def test_a_deep_configuration_is_refused_and_a_wide_one_is_not():
    deep = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(InputError, match="more than 100 levels"):
        plain(deep)
    wide = ["x"]
    for _ in range(60):  # 2^60 leaves, were shared parts walked again
        wide = [wide, wide]
    found = plain(wide)
    assert found[0] is found[1]
