"""The configuration reader: merging, strict types, kinds, round trip."""

import sys
import types
from dataclasses import dataclass, field
from typing import Literal

import pytest

from speechkit.config import check_range, differences, dump, kind, load_config, optional_kind, to_dict
from speechkit.errors import InputError


@dataclass
class Small:
    name: str = "small"
    dim: int = 4
    act: Literal["relu", "swish"] = "relu"


@dataclass
class Large:
    name: str = "large"
    dim: int = 8
    heads: int = 2


small, large = types.ModuleType("config_small"), types.ModuleType("config_large")
small.Config, large.Config = Small, Large
sys.modules |= {"config_small": small, "config_large": large}
TABLE = {"small": "config_small", "large": "config_large"}


@dataclass
class Root:
    encoder: Small = kind(TABLE, "small")
    extra: Small | None = optional_kind(TABLE)
    language: str = "en"
    rate: float | None = None
    sizes: list[list[int]] = field(default_factory=lambda: [[1, 2]])
    scales: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if self.rate is not None:
            check_range("rate", self.rate, 0, 1)


def write(tmp_path, text, name="c.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_and_overrides(tmp_path):
    path = write(tmp_path, "encoder:\n  dim: 5\nrate: 5e-4\n")
    config = load_config(Root, path, ["encoder.act=swish", "scales.a=2", "sizes=[[3], [4, 5]]"])
    assert config.encoder == Small(dim=5, act="swish")
    assert config.rate == 5e-4 and config.scales == {"a": 2.0} and config.sizes == [[3], [4, 5]]


def test_a_kind_is_replaced_whole_when_its_name_changes(tmp_path):
    path = write(tmp_path, "encoder: {act: swish}\n")
    assert load_config(Root, path, ["encoder={name: large, heads: 3}"]).encoder == Large(heads=3)


def test_what_overrides_set_in_a_kind_may_stand_before_its_name():
    for overrides in (["encoder.heads=3", "encoder.name=large"], ["encoder.name=large", "encoder.heads=3"]):
        assert load_config(Root, None, overrides).encoder == Large(heads=3)


def test_optional_kind(tmp_path):
    assert load_config(Root).extra is None
    assert load_config(Root, None, ["extra.name=large"]).extra == Large()


def test_a_base_may_leave_the_kind_open(tmp_path):
    write(tmp_path, "encoder: {heads: 7}\n", "base.yaml")
    assert load_config(Root, write(tmp_path, "base: base.yaml\nencoder: {name: large}\n")).encoder == Large(
        heads=7
    )


def test_base_file_is_merged_below(tmp_path):
    write(tmp_path, "encoder: {dim: 7, act: swish}\nlanguage: de\n", "base.yaml")
    config = load_config(Root, write(tmp_path, "base: base.yaml\nlanguage: fr\n"))
    assert config.encoder == Small(dim=7, act="swish") and config.language == "fr"


def test_no_is_a_word_and_booleans_are_only_true_and_false(tmp_path):
    assert load_config(Root, write(tmp_path, "language: no\n")).language == "no"


def test_dump_reads_back_equal(tmp_path):
    config = load_config(Root, None, ["rate=1e-05", "language=no", "encoder.name=large", "scales.x=1e300"])
    assert load_config(Root, write(tmp_path, dump(config))) == config


def test_differences_name_the_path():
    a, b = to_dict(load_config(Root)), to_dict(load_config(Root, None, ["encoder.dim=9"]))
    assert differences(a, b) == ["encoder.dim: 4 -> 9"]


BAD = {
    "unknown key": ("encoder: {dimm: 3}\n", [], "c.yaml:1: encoder.dimm: unknown key; did you mean 'dim'?"),
    "duplicate key": ("rate: 0.1\nrate: 0.2\n", [], "c.yaml:2: duplicate key 'rate'"),
    "nested duplicate": ("encoder:\n  dim: 1\n  dim: 2\n", [], "c.yaml:3: duplicate key 'encoder.dim'"),
    "float for int": ("encoder: {dim: 3.5}\n", [], "encoder.dim: expected a whole number, got 3.5"),
    "text for int": ("encoder: {dim: abc}\n", [], "encoder.dim: expected a whole number, got 'abc'"),
    "bool for int": ("encoder: {dim: true}\n", [], "encoder.dim: expected a whole number, got True"),
    "number for text": ("language: 3\n", [], "c.yaml:1: language: expected text, got 3"),
    "choice": ("encoder: {act: tanh}\n", [], "encoder.act: 'tanh' is not one of relu, swish"),
    "kind": ("encoder: {name: smal}\n", [], "encoder.name: no kind 'smal'; did you mean 'small'?"),
    "section wanted": ("encoder: 3\n", [], "encoder: expected a section"),
    "range": ("rate: 7\n", [], "rate=7.0 must be in [0, 1]"),
    "interpolation": ("language: ${oc.env:HOME}\n", [], "c.yaml:1: interpolation is not supported"),
    "alias": ("sizes: &a [[1]]\nscales: *a\n", [], "aliases are not supported"),
    "tag": ("language: !!python/object/apply:os.system [true]\n", [], "c.yaml:1: language"),
    "not yaml": ("encoder: [\n", [], "not YAML"),
    "a list at the root": ("- 1\n", [], "c.yaml:1: expected keys and values"),
    "value-less override": ("", ["rate="], "override 'rate=': no value"),
    "override without =": ("", ["rate"], "expected key=value"),
    "override of unknown": ("", ["rat=0.1"], "override 'rat=0.1': rat: unknown key; did you mean 'rate'?"),
    "base of a base": ("base: c.yaml\n", [], "a base file cannot have a base of its own"),
    "missing base": ("base: other.yaml\n", [], "other.yaml: no such configuration file"),
    "list element": ("sizes: [[1, x]]\n", [], "sizes.0.1: expected a whole number, got 'x'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_configuration_is_named(case, tmp_path):
    text, overrides, message = BAD[case]
    with pytest.raises(InputError) as caught:
        load_config(Root, write(tmp_path, text), overrides)
    assert message in str(caught.value)


def test_every_problem_is_reported_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        load_config(Root, write(tmp_path, "language: 1\nencoder: {dim: x}\nfoo: 2\n"))
    assert len(str(caught.value).splitlines()) == 3


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nothing.yaml: no such configuration file"):
        load_config(Root, tmp_path / "nothing.yaml")


def test_not_utf8(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"language: \xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        load_config(Root, tmp_path / "c.yaml")
