"""A description of a reference changes with everything its numbers depend on, and with nothing else."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from mightnt.errors import InputError
from mightnt.lm.bases.capped import Capped
from mightnt.lm.bases.minimum import Minimum
from mightnt.lm.bases.single import Single
from mightnt.lm.networks import NetworkShape, build_network
from mightnt.lm.reference import Reference
from mightnt.lm.trl_adapter.manifest import NAME, described, digest, same_or_refuse, settings_of, write_manifest
from mightnt.models.counts import Support, fit_counts
from mightnt.models.situations import Clusters, fit_situations

N = 6


def made(base=None, seeds=(0, 1), longest=1, **settings):
    tokens = np.arange(60) % N
    mask = settings.pop("is_action", np.ones(N, dtype=np.bool_))
    counts = fit_counts(tokens, np.array([0, 60]), tokens >= 0, mask, longest)
    width, far = settings.pop("situated", (16, 9.0))
    rng = np.random.default_rng(0)
    situations = fit_situations(rng.normal(size=(60, 16)).astype(np.float32), tokens, mask, Clusters(places=width))
    networks = [build_network(NetworkShape(16, 1, 1, 16), N, seed) for seed in seeds]
    chosen = {"is_action": mask, "counts": counts, "support": Support(10, 1)} | settings
    chosen["situations"] = replace(situations, farthest=far)
    return Reference(networks, Capped(1.0) if base is None else base, **chosen)


def test_equal_references_have_equal_descriptions():
    assert described(made()) == described(made())
    json.dumps(described(made()))


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("base", {"base": Capped(1.1)}),
        ("base", {"base": Minimum()}),
        ("networks", {"seeds": (0, 2)}),
        ("networks", {"seeds": (1, 0)}),
        ("counts_sha256", {"longest": 2}),
        ("support", {"support": Support(11, 1)}),
        ("situations_sha256", {"situated": (12, 9.0)}),
        ("situations", {"situated": (16, 8.0)}),
        ("temperature", {"temperature": 0.9}),
        ("forbidden_nats", {"forbidden_nats": 50.0}),
        ("is_action_sha256", {"is_action": np.array([False, *[True] * (N - 1)])}),
    ],
)
def test_another_reference_is_refused_by_name(what, changed):
    with pytest.raises(InputError, match=what):
        same_or_refuse(described(made()), described(made(**changed)), "reference")
    same_or_refuse(described(made(**changed)), described(made(**changed)), "reference")


def test_one_changed_weight_is_found():
    ours = made(base=Single())
    before = described(ours)
    with torch.no_grad():
        ours.parts[1].network.get_input_embeddings().weight[0, 0] += 1e-6
    with pytest.raises(InputError, match="networks differ"):
        same_or_refuse(before, described(ours), "reference")


@dataclass(frozen=True)
class Holding:
    """A base around another, with numbers of its own."""

    base: object
    numbers: torch.Tensor
    pair: tuple = (1.0, torch.arange(2))


def test_a_base_in_a_base_is_told_by_kind_and_its_arrays_by_digest():
    """Arrays are as large as the vocabulary: a checkpoint holds no list of them."""
    numbers = torch.arange(4.0)
    found = settings_of(Holding(Minimum("same"), numbers))
    assert found["kind"] == "Holding"
    assert found["base"] == {"kind": "Minimum", "name": "same"}
    assert set(found["numbers"]) == set(found["pair"][1]) == {"sha256"}
    assert found == settings_of(Holding(Minimum("same"), numbers.clone()))
    assert found != settings_of(Holding(Single("same"), numbers))
    assert found != settings_of(Holding(Minimum("same"), numbers + 1))
    json.dumps(found)


def test_digests_see_names_types_and_shapes():
    a = torch.arange(4, dtype=torch.int32)
    digests = [
        digest({"a": a}),
        digest({"b": a}),
        digest({"a": a.view(2, 2)}),
        digest({"a": a.view(torch.float32)}),
        digest({"a": a, "c": 1}),
        digest({"a": a, "c": 2}),
        digest({"a": a.to(torch.bfloat16)}),
    ]
    assert len(set(digests)) == len(digests)
    assert digest({"a": a, "c": 1}) == digest({"c": 1, "a": a.clone()})


def test_the_manifest_is_json_with_provenance(tmp_path):
    write_manifest(tmp_path, {"reference": described(made()), "beta": 0.1})
    kept = json.loads((tmp_path / NAME).read_text())
    assert kept["kind"] == "mightnt protection"
    assert kept["reference"] == described(made())
    assert kept["provenance"]["packages"]["torch"]
